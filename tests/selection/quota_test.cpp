#include "selection/quota.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

using Counts = std::vector<std::int64_t>;

TEST(SubsetSize, IsRoundedExactly) {
  EXPECT_EQ(subset_size(0.05, 50000), 2500);
  EXPECT_EQ(subset_size(0.25, 1437), 359);  // 359.25
  EXPECT_EQ(subset_size(0.25, 10), 3);      // halves go up
  EXPECT_EQ(subset_size(1.0, 7), 7);
  EXPECT_EQ(subset_size(0.1, 5), 1);
  for (const double fraction : {0.0, -0.1, 1.01, 0.0001}) EXPECT_THROW(subset_size(fraction, 100), ConfigError);
  EXPECT_THROW(subset_size(0.5, 0), ConfigError);
}

TEST(ClassQuota, IsEqualUpToOne) {
  EXPECT_EQ(class_quota(10, Counts{100, 100, 100}), (Counts{4, 3, 3}));
  EXPECT_EQ(class_quota(2, Counts{100, 100, 100}), (Counts{1, 1, 0}));
  EXPECT_EQ(class_quota(10, Counts{1, 100, 100}), (Counts{1, 5, 4}));
  EXPECT_EQ(class_quota(10, Counts{0, 2, 100}), (Counts{0, 2, 8}));
  EXPECT_EQ(class_quota(7, Counts{9, 9, 1}), (Counts{3, 3, 1}));
  EXPECT_EQ(class_quota(300, Counts{1, 2, 3}), (Counts{1, 2, 3}));
}

TEST(SplitByWeight, IsTheLargestRemainder) {
  EXPECT_EQ(split_by_weight(10, Counts{6, 3, 1}, Counts{100, 100, 100}), (Counts{6, 3, 1}));
  EXPECT_EQ(split_by_weight(5, Counts{1, 1, 1}, Counts{9, 9, 9}), (Counts{2, 2, 1}));
  EXPECT_EQ(split_by_weight(7, Counts{50, 30, 20}, Counts{9, 9, 9}), (Counts{4, 2, 1}));  // of 3.5, 2.1, 1.4
}

TEST(SplitByWeight, HoldsItsPromisesOnRandomInput) {
  RandomStream stream(3, "quota test");
  for (int trial = 0; trial < 3000; ++trial) {
    const auto classes = static_cast<std::size_t>(1 + stream.below(6));
    Counts weights, available;
    for (std::size_t c = 0; c < classes; ++c) {
      weights.push_back(static_cast<std::int64_t>(1 + stream.below(9)));
      available.push_back(static_cast<std::int64_t>(stream.below(12)));
    }
    const std::int64_t room = std::accumulate(available.begin(), available.end(), std::int64_t{0});
    const std::int64_t weight = std::accumulate(weights.begin(), weights.end(), std::int64_t{0});
    const auto total = static_cast<std::int64_t>(stream.below(40));
    const Counts quota = split_by_weight(total, weights, available);
    EXPECT_EQ(std::accumulate(quota.begin(), quota.end(), std::int64_t{0}), std::min(total, room));
    bool capped = false;
    for (std::size_t c = 0; c < classes; ++c) {
      EXPECT_GE(quota[c], 0);
      EXPECT_LE(quota[c], available[c]);
      capped = capped || quota[c] == available[c];
    }
    for (std::size_t c = 0; c < classes && !capped; ++c) {  // within one of the exact share
      EXPECT_LT(std::abs(static_cast<double>(quota[c]) -
                         static_cast<double>(total * weights[c]) / static_cast<double>(weight)),
                1.0);
    }
    const Counts equal = class_quota(total, available);
    for (std::size_t a = 0; a < classes; ++a) {  // nobody gets two more than a class that could have had another
      for (std::size_t b = 0; b < classes; ++b) {
        if (equal[a] < available[a]) {
          EXPECT_LE(equal[b], equal[a] + 1);
          if (b > a) {
            EXPECT_LE(equal[b], equal[a]) << "ties go to the lower class";
          }
        }
      }
    }
  }
}

TEST(Highest, BreaksTiesByPosition) {
  const std::vector<float> scores = {1, 3, 3, 2, 3, -1};
  EXPECT_EQ(highest(scores, 2), (Counts{1, 2}));
  EXPECT_EQ(highest(scores, 4), (Counts{1, 2, 3, 4}));
  EXPECT_EQ(highest(scores, 0), Counts{});
  const Counts labels = {0, 1, 0, 1, 1, 0};
  EXPECT_EQ(highest_of_each_class(scores, labels, Counts{1, 1}), (Counts{1, 2}));
  EXPECT_EQ(highest_of_each_class(scores, labels, Counts{3, 2}), (Counts{0, 1, 2, 4, 5}));
  EXPECT_THROW(highest_of_each_class(scores, labels, Counts{4, 0}), InternalError);
}

TEST(Highest, AgreesWithAFullSort) {
  RandomStream stream(4, "highest test");
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<float> scores;
    for (std::uint64_t i = 0, n = 1 + stream.below(30); i < n; ++i)
      scores.push_back(static_cast<float>(stream.below(5)));
    Counts order(scores.size());
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
    });
    const auto total = stream.below(scores.size() + 1);
    Counts expected(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(total));
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(highest(scores, static_cast<std::int64_t>(total)), expected);
  }
}

}  // namespace
}  // namespace sage
