#include "selection/coverage.h"

#include <ATen/ops/dot.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/random.h"
#include "selection/quota.h"
#include "selection_cases.h"
#include "support/matrices.h"

namespace sage {
namespace {

using Positions = std::vector<std::int64_t>;

TEST(Coverage, StratifiedDrawsOneOfEveryRun) {
  RandomStream stream(4, "coverage test");
  std::vector<float> scores;
  Positions labels, excluded;
  for (std::int64_t i = 0; i < 400; ++i) {
    scores.push_back(static_cast<float>(stream.below(50)));  // many are equal
    labels.push_back(static_cast<std::int64_t>(stream.below(3)));
    if (stream.uniform() < 0.2) excluded.push_back(i);
  }
  const Positions chosen = draw_stratified(scores, labels, 3, excluded, 60, 1, 0);
  EXPECT_EQ(chosen, draw_stratified(scores, labels, 3, excluded, 60, 1, 0));
  EXPECT_NE(chosen, draw_stratified(scores, labels, 3, excluded, 60, 1, 1)) << "another round draws others";
  EXPECT_NE(chosen, draw_stratified(scores, labels, 3, excluded, 60, 2, 0));
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  const auto members = members_of_classes(labels, 3, excluded);
  for (std::size_t c = 0; c < 3; ++c) {
    Positions order = members[c];
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
    });
    for (std::size_t stratum = 0; stratum < 20; ++stratum) {
      const auto first = order.begin() + static_cast<std::ptrdiff_t>(stratum * order.size() / 20);
      const auto last = order.begin() + static_cast<std::ptrdiff_t>((stratum + 1) * order.size() / 20);
      EXPECT_EQ(std::count_if(first, last,
                              [&](std::int64_t i) { return std::binary_search(chosen.begin(), chosen.end(), i); }),
                1);
    }
  }
}

/// Greedy with everything computed again in every step.
Positions slow_facility_location(const at::Tensor& directions, std::int64_t count) {
  const at::Tensor similarity = at::mm(directions, directions.t()).to(at::kDouble) + 1.0;
  Positions chosen;
  while (static_cast<std::int64_t>(chosen.size()) < count) {
    double best = -1.0;
    std::int64_t best_candidate = -1;
    for (std::int64_t candidate = 0; candidate < directions.size(0); ++candidate) {
      if (std::count(chosen.begin(), chosen.end(), candidate) > 0) continue;
      at::Tensor covered = similarity[candidate];
      for (const std::int64_t earlier : chosen) covered = at::maximum(covered, similarity[earlier]);
      const double value = covered.sum().item<double>();
      if (value > best + 1e-9) best = value, best_candidate = candidate;
    }
    chosen.push_back(best_candidate);
  }
  return chosen;
}

TEST(Coverage, FacilityLocationIsGreedy) {
  const at::Tensor z = to_unit_length(testing::normal_matrix(60, 5, 8).to(at::kFloat)).directions;
  EXPECT_EQ(cover("facility_location", z, 9), slow_facility_location(z, 9));
}

TEST(Coverage, FarthestFirstIsGonzalez) {
  const at::Tensor z = to_unit_length(testing::normal_matrix(80, 4, 9).to(at::kFloat)).directions;
  const Positions chosen = cover("farthest_first", z, 80);
  Positions all(80);
  std::iota(all.begin(), all.end(), 0);
  Positions sorted = chosen;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(sorted, all) << "each once";
  const at::Tensor cosines = at::mm(z, z.t());
  const at::Tensor to_all = cosines.sum(1);
  EXPECT_EQ(chosen[0], to_all.argmax().item<std::int64_t>());
  for (std::size_t step = 1; step < 20; ++step) {
    // No example is farther from those chosen before than the one that was.
    const auto nearest = [&](std::int64_t i) {
      float best = -2.0f;
      for (std::size_t s = 0; s < step; ++s) best = std::max(best, cosines[i][chosen[s]].item<float>());
      return best;
    };
    for (std::int64_t i = 0; i < 80; ++i) {
      if (std::count(chosen.begin(), chosen.begin() + static_cast<std::ptrdiff_t>(step), i) > 0) continue;
      EXPECT_GE(nearest(i), nearest(chosen[step]) - 1e-6f);
    }
  }
  // Equal rows are chosen in turn, never twice.
  const Positions equal = cover("farthest_first", at::ones({5, 3}), 5);
  EXPECT_EQ(equal, (Positions{0, 1, 2, 3, 4}));
}

class CoverageOfSelections : public ::testing::Test {
 protected:
  /// Mean over all that was not cut off of the cosine to the nearest example of its class that was kept.
  double covered(const testing::ClassifierSource& source, const SelectionResult& result) {
    const at::Tensor z = to_unit_length(const_cast<testing::ClassifierSource&>(source).matrix()).directions;
    double sum = 0.0, count = 0.0;
    for (std::size_t i = 0; i < source.labels.size(); ++i) {
      const auto id = static_cast<std::int64_t>(i);
      if (std::binary_search(result.doubtful.begin(), result.doubtful.end(), id)) continue;
      double best = -1.0;
      for (const std::int64_t kept : result.kept) {
        if (source.labels[static_cast<std::size_t>(kept)] != source.labels[i]) continue;
        best = std::max(best, at::dot(z[id], z[kept]).item<double>());
      }
      sum += best;
      count += 1.0;
    }
    return sum / count;
  }
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
};

TEST_F(CoverageOfSelections, KeepsTheQuotaAndCoversMoreThanRandom) {
  testing::ClassifierSource source(400, 4, 6, 0.2, 3);  // D = 28
  SelectionConfig config = testing::small_config();
  config.sketch.size = 16;  // exact
  config.fraction = 0.08;
  config.keep = "filter";
  const SelectionResult random = testing::select_from(source, config, *one_, testing::all_ids(source));
  config.keep = "coverage";
  for (const char* coverage : {"stratified", "farthest_first", "facility_location"}) {
    SCOPED_TRACE(coverage);
    config.coverage = coverage;
    const SelectionResult result = testing::select_from(source, config, *one_, testing::all_ids(source));
    EXPECT_EQ(result.doubtful, random.doubtful);
    EXPECT_EQ(result.class_histogram, random.class_histogram);
    EXPECT_TRUE(std::is_sorted(result.kept.begin(), result.kept.end()));
    Positions both;
    std::set_intersection(result.kept.begin(), result.kept.end(), result.doubtful.begin(), result.doubtful.end(),
                          std::back_inserter(both));
    EXPECT_TRUE(both.empty());
    if (config.coverage != "stratified") {
      EXPECT_GT(covered(source, result), covered(source, random));
    }
    // The same whether directions are kept or computed again.
    for (const char* scores : {"cached", "recomputed"}) {
      config.scores = scores;
      source.can_cache = false;
      EXPECT_GE(
          testing::overlap(testing::select_from(source, config, *one_, testing::all_ids(source)).kept, result.kept),
          0.95);
    }
    config.scores = "auto";
    source.can_cache = true;
  }
}

TEST_F(CoverageOfSelections, LargeClassesAreDealtOutInChunks) {
  testing::ClassifierSource source(5000, 2, 2, 0.0, 3, 1.5);  // 2500 of each class: two chunks each
  SelectionConfig config = testing::small_config();
  config.sketch.size = 8;
  config.fraction = 0.01;
  config.keep = "coverage";
  config.coverage = "facility_location";
  config.filter.drop = 0.0;
  const SelectionResult result = testing::select_from(source, config, *one_, testing::all_ids(source));
  EXPECT_EQ(result.class_histogram, (Positions{25, 25}));
  EXPECT_EQ(result.kept.size(), 50u);
}

}  // namespace
}  // namespace sage
