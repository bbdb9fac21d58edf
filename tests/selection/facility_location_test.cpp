#include "selection/facility_location.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace sage {
namespace {

at::Tensor random_points(std::int64_t count, std::int64_t dimension, std::uint64_t trial) {
  RandomStream stream(11, "facility location test", trial);
  at::Tensor points = at::empty({count, dimension}, at::kFloat);
  float* value = points.data_ptr<float>();
  for (std::int64_t i = 0; i < points.numel(); ++i) value[i] = static_cast<float>(stream.normal());
  return points;
}

double value_of(const at::Tensor& similarity, const std::vector<std::int64_t>& chosen) {
  const auto s = similarity.accessor<float, 2>();
  double sum = 0.0;
  for (std::int64_t i = 0; i < similarity.size(0); ++i) {
    float best = 0.0f;
    for (const std::int64_t j : chosen) best = std::max(best, s[j][i]);
    sum += static_cast<double>(best);
  }
  return sum;
}

/// Every gain anew at each step, in double precision.
std::vector<std::int64_t> naive_greedy(const at::Tensor& similarity, std::int64_t k) {
  std::vector<std::int64_t> chosen;
  while (static_cast<std::int64_t>(chosen.size()) < k) {
    std::int64_t best = -1;
    double best_value = -1.0;
    for (std::int64_t j = 0; j < similarity.size(0); ++j) {
      if (std::find(chosen.begin(), chosen.end(), j) != chosen.end()) continue;
      chosen.push_back(j);
      const double value = value_of(similarity, chosen);
      chosen.pop_back();
      if (value > best_value) {
        best_value = value;
        best = j;
      }
    }
    chosen.push_back(best);
  }
  return chosen;
}

double best_value_of_all_sets(const at::Tensor& similarity, std::int64_t k) {
  const std::int64_t n = similarity.size(0);
  double best = 0.0;
  for (std::uint32_t bits = 0; bits < (1u << n); ++bits) {
    if (__builtin_popcount(bits) != k) continue;
    std::vector<std::int64_t> chosen;
    for (std::int64_t j = 0; j < n; ++j) {
      if ((bits >> j) & 1u) chosen.push_back(j);
    }
    best = std::max(best, value_of(similarity, chosen));
  }
  return best;
}

TEST(LazyGreedy, EqualsTheNaiveAlgorithmWithItsTies) {
  for (std::uint64_t trial = 0; trial < 40; ++trial) {
    RandomStream stream(5, "sizes", trial);
    const auto n = static_cast<std::int64_t>(1 + stream.below(60));
    const auto k = static_cast<std::int64_t>(1 + stream.below(static_cast<std::uint64_t>(n)));
    // Whole numbers: sums are exact in float32, and ties abound.
    at::Tensor similarity = similarity_of(random_points(n, 2, trial)).mul_(4).floor_();
    const auto choice = lazy_greedy(similarity, k);
    EXPECT_EQ(choice.chosen, naive_greedy(similarity, k)) << "n " << n << " k " << k;
    EXPECT_EQ(choice.value, value_of(similarity, choice.chosen));
  }
}

TEST(LazyGreedy, EqualsTheNaiveAlgorithmOnRealNumbers) {
  for (std::uint64_t trial = 0; trial < 10; ++trial) {
    const at::Tensor similarity = similarity_of(random_points(70, 10, trial));
    EXPECT_EQ(lazy_greedy(similarity, 20).chosen, naive_greedy(similarity, 20));
  }
}

TEST(LazyGreedy, ReachesTheBoundOfTheBestSet) {
  for (std::uint64_t trial = 0; trial < 20; ++trial) {
    const at::Tensor similarity = similarity_of(random_points(11, 2, 100 + trial));
    for (std::int64_t k = 1; k <= 4; ++k) {
      const double best = best_value_of_all_sets(similarity, k), reached = lazy_greedy(similarity, k).value;
      EXPECT_GE(reached, (1 - std::exp(-1.0)) * best);
      EXPECT_LE(reached, best * (1 + 1e-12));
    }
  }
}

TEST(LazyGreedy, ClustersPartitionThePoints) {
  const at::Tensor points = random_points(83, 3, 7), similarity = similarity_of(points);
  const auto choice = lazy_greedy(similarity, 9);
  std::vector<std::int64_t> cluster(9, 0);
  const auto s = similarity.accessor<float, 2>();
  for (std::int64_t i = 0; i < 83; ++i) {
    std::size_t owner = 0;
    for (std::size_t j = 1; j < 9; ++j) {
      if (s[choice.chosen[j]][i] > s[choice.chosen[owner]][i]) owner = j;
    }
    ++cluster[owner];
  }
  EXPECT_EQ(choice.cluster, cluster);
  EXPECT_EQ(std::accumulate(cluster.begin(), cluster.end(), std::int64_t{0}), 83);
}

TEST(LazyGreedy, ChoosesAllWhereAllAreWanted) {
  for (const std::int64_t n : {1, 2, 37}) {
    auto choice = lazy_greedy(similarity_of(random_points(n, 4, 3)), n);
    EXPECT_EQ(choice.cluster, std::vector<std::int64_t>(static_cast<std::size_t>(n), 1));
    std::sort(choice.chosen.begin(), choice.chosen.end());
    std::vector<std::int64_t> all(static_cast<std::size_t>(n));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    EXPECT_EQ(choice.chosen, all);
  }
  // Points without any difference: the first stands for all, the others for none.
  const auto equal = lazy_greedy(similarity_of(at::ones({4, 2})), 4);
  EXPECT_EQ(equal.chosen, (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(equal.cluster, (std::vector<std::int64_t>{4, 0, 0, 0}));
}

TEST(LazyGreedy, RefusesWhatIsNotFinite) {
  at::Tensor similarity = similarity_of(random_points(20, 4, 3));
  similarity[19][4] = std::numeric_limits<float>::quiet_NaN();
  RandomStream stream(1, "stochastic");
  EXPECT_THROW(lazy_greedy(similarity, 2), TrainingError);
  EXPECT_THROW(stochastic_greedy(similarity, 2, 0.1, stream), TrainingError);
  EXPECT_THROW(lazy_greedy(similarity, 0), InternalError);
  EXPECT_THROW(lazy_greedy(similarity, 21), InternalError);
  EXPECT_THROW(lazy_greedy(similarity.t(), 3), InternalError);
}

TEST(StochasticGreedy, IsTheGreedyAlgorithmWhereItDrawsAll) {
  const at::Tensor similarity = similarity_of(random_points(50, 5, 9));
  RandomStream stream(1, "stochastic");
  const auto choice = stochastic_greedy(similarity, 10, 1e-9, stream);  // 50 / 10 ln(1e9) > 50 candidates
  const auto greedy = lazy_greedy(similarity, 10);
  EXPECT_EQ(choice.chosen, greedy.chosen);
  EXPECT_EQ(choice.cluster, greedy.cluster);
}

TEST(StochasticGreedy, ReachesItsBoundOnAverageAndRepeats) {
  const at::Tensor similarity = similarity_of(random_points(14, 2, 21));
  const double best = best_value_of_all_sets(similarity, 4);
  double sum = 0.0;
  for (std::uint64_t draw = 0; draw < 200; ++draw) {
    RandomStream stream(1, "stochastic", draw), again(1, "stochastic", draw);
    const auto choice = stochastic_greedy(similarity, 4, 0.2, stream);
    sum += choice.value;
    EXPECT_EQ(choice.value, value_of(similarity, choice.chosen));
    EXPECT_EQ(choice.chosen, stochastic_greedy(similarity, 4, 0.2, again).chosen);
  }
  EXPECT_GE(sum / 200, (1 - std::exp(-1.0) - 0.2) * best);
  EXPECT_LT(sum / 200, best);  // six candidates a step miss the best one now and then
}

TEST(SimilarityOf, IsTheLargestDistanceLessTheDistance) {
  const at::Tensor points = random_points(9, 3, 2), similarity = similarity_of(points);
  const auto p = points.accessor<float, 2>(), s = similarity.accessor<float, 2>();
  double largest = 0.0;
  const auto distance = [&](std::int64_t i, std::int64_t j) {
    double sum = 0.0;
    for (std::int64_t d = 0; d < 3; ++d)
      sum += std::pow(static_cast<double>(p[i][d]) - static_cast<double>(p[j][d]), 2);
    return std::sqrt(sum);
  };
  for (std::int64_t i = 0; i < 9; ++i) {
    for (std::int64_t j = 0; j < 9; ++j) largest = std::max(largest, distance(i, j));
  }
  for (std::int64_t i = 0; i < 9; ++i) {
    for (std::int64_t j = 0; j < 9; ++j) EXPECT_NEAR(s[i][j], largest - distance(i, j), 1e-5);
  }
  EXPECT_EQ(similarity.min().item<float>(), 0.0f);
}

}  // namespace
}  // namespace sage
