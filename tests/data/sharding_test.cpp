#include "data/sharding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace sage {
namespace {

std::vector<std::int64_t> spaced_ids(std::int64_t count) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) ids[static_cast<std::size_t>(i)] = 3 * i + 1;
  return ids;
}

TEST(BalancedRange, CoversOnceInOrder) {
  for (std::int64_t count = 0; count <= 40; ++count) {
    for (int parts = 1; parts <= 9; ++parts) {
      std::int64_t at = 0, least = count, most = 0;
      for (int part = 0; part < parts; ++part) {
        const Range range = balanced_range(count, part, parts);
        EXPECT_EQ(range.begin, at);
        at = range.end;
        least = std::min(least, range.size());
        most = std::max(most, range.size());
      }
      EXPECT_EQ(at, count);
      EXPECT_LE(most - least, 1);
    }
  }
}

TEST(EpochPlan, EveryRankMakesTheSameStepsAndEveryExampleComesOnce) {
  for (const std::int64_t count : {0, 1, 2, 5, 16, 17, 63, 64, 65, 100}) {
    const auto ids = spaced_ids(count);
    for (const int ranks : {1, 2, 3, 4, 7, 8}) {
      for (const std::int64_t batch : {1, 2, 5, 8, 16, 64, 200}) {
        std::vector<std::int64_t> joined;
        const EpochPlan one(ids, batch, 0, 1, 9, 4);
        std::vector<EpochPlan> plans;
        for (int r = 0; r < ranks; ++r) plans.emplace_back(ids, batch, r, ranks, 9, 4);
        for (const EpochPlan& plan : plans) ASSERT_EQ(plan.steps(), (count + batch - 1) / batch);
        for (std::int64_t step = 0; step < one.steps(); ++step) {
          std::vector<std::int64_t> together;
          std::size_t least = 1000, most = 0;
          for (const EpochPlan& plan : plans) {
            const auto local = plan.local_batch(step);
            together.insert(together.end(), local.begin(), local.end());
            least = std::min(least, local.size());
            most = std::max(most, local.size());
          }
          ASSERT_LE(most - least, 1u);
          // The ranks' parts, in rank order, are what one rank works on.
          ASSERT_TRUE(std::ranges::equal(together, one.local_batch(step)));
          ASSERT_TRUE(std::ranges::equal(together, plans.back().global_batch(step)));
          if (step + 1 < one.steps()) {
            ASSERT_EQ(static_cast<std::int64_t>(together.size()), batch);
          }
          joined.insert(joined.end(), together.begin(), together.end());
        }
        std::ranges::sort(joined);
        ASSERT_EQ(joined, ids);
      }
    }
  }
}

TEST(EpochPlan, OrderDependsOnSeedAndEpochOnly) {
  const auto ids = spaced_ids(500);
  const auto order = [&](std::int64_t batch, int rank, int ranks, std::uint64_t seed, std::int64_t epoch) {
    const EpochPlan plan(ids, batch, rank, ranks, seed, epoch);
    return std::vector<std::int64_t>(plan.order().begin(), plan.order().end());
  };
  const auto reference = order(32, 0, 1, 1, 2);
  EXPECT_EQ(reference, order(7, 2, 3, 1, 2));
  EXPECT_NE(reference, order(32, 0, 1, 1, 3));
  EXPECT_NE(reference, order(32, 0, 1, 2, 2));
  EXPECT_NE(reference, ids);
}

TEST(EpochPlan, AnEpochGoesOnWhereItWasOnAnyNumberOfRanks) {
  std::vector<std::int64_t> ids(103);
  std::iota(ids.begin(), ids.end(), std::int64_t{7});
  const EpochPlan whole(ids, 10, 0, 1, 5, 3);
  for (const int ranks : {1, 2, 3}) {
    for (const std::int64_t done : {0, 4, 10, 11}) {
      for (int rank = 0; rank < ranks; ++rank) {
        EpochPlan rest(ids, 10, rank, ranks, 5, 3), from_start(ids, 10, rank, ranks, 5, 3);
        rest.skip(std::min<std::int64_t>(10 * done, 103));
        ASSERT_EQ(rest.steps(), 11 - done);
        for (std::int64_t step = 0; step < rest.steps(); ++step) {
          ASSERT_TRUE(std::ranges::equal(rest.global_batch(step), whole.global_batch(done + step)));
          ASSERT_TRUE(std::ranges::equal(rest.local_batch(step), from_start.local_batch(done + step)));
        }
      }
    }
  }
  EpochPlan plan(ids, 10, 0, 1, 5, 3);
  EXPECT_THROW(plan.skip(5), InternalError);
  EXPECT_THROW(plan.skip(110), InternalError);
}

}  // namespace
}  // namespace sage
