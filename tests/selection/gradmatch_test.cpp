// GradMatch against orthogonal matching pursuit with weights found by trying every set of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "method_cases.h"
#include "selection/methods.h"

namespace sage {
namespace {

using testing::dot;
using testing::groups_of;
using testing::norm;
using testing::PlainFactors;
using testing::Positions;
using testing::Vector;

class GradMatch : public testing::MethodTest {};
INSTANTIATE_TEST_SUITE_P(PerClassAndGlobal, GradMatch, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "PerClass" : "Global"; });

/// min over w >= 0 on `support`, by trying every set of positive weights. Returns the weights.
Vector brute_force_weights(const std::vector<Vector>& g, const Positions& support, const Vector& target,
                           double lambda) {
  const std::size_t k = support.size();
  Vector best(k, 0.0);
  double best_value = std::numeric_limits<double>::infinity();
  for (std::size_t mask = 0; mask < (std::size_t{1} << k); ++mask) {
    Positions used;
    for (std::size_t j = 0; j < k; ++j) {
      if ((mask >> j) & 1) used.push_back(j);
    }
    const std::size_t n = used.size();
    std::vector<Vector> system(n, Vector(n + 1));  // Gauss-Jordan
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = 0; b < n; ++b) {
        system[a][b] = dot(g[support[used[a]]], g[support[used[b]]]) + (a == b ? lambda : 0.0);
      }
      system[a][n] = dot(g[support[used[a]]], target);
    }
    for (std::size_t a = 0; a < n; ++a) {
      std::size_t pivot = a;
      for (std::size_t b = a; b < n; ++b) {
        if (std::abs(system[b][a]) > std::abs(system[pivot][a])) pivot = b;
      }
      std::swap(system[a], system[pivot]);
      for (std::size_t b = 0; b < n; ++b) {
        if (b == a) continue;
        const double factor = system[b][a] / system[a][a];
        for (std::size_t column = a; column <= n; ++column) system[b][column] -= factor * system[a][column];
      }
    }
    Vector weights(k, 0.0);
    bool is_allowed = true;
    for (std::size_t a = 0; a < n; ++a) {
      weights[used[a]] = system[a][n] / system[a][a];
      is_allowed = is_allowed && weights[used[a]] > 0.0;
    }
    if (!is_allowed) continue;
    Vector residual = target;
    for (std::size_t j = 0; j < k; ++j) {
      for (std::size_t d = 0; d < residual.size(); ++d) residual[d] -= weights[j] * g[support[j]][d];
    }
    const double value = dot(residual, residual) + lambda * dot(weights, weights);
    if (value < best_value) {
      best_value = value;
      best = weights;
    }
  }
  return best;
}

TEST_P(GradMatch, IsOrthogonalMatchingPursuit) {
  const PlainFactors plain(test_.source, test_.ids);
  test_.config.fraction = GetParam() ? 0.14 : 0.05;  // six or nine of a group: 2^9 sets of weights
  test_.config.gradmatch.tolerance = 0.0;
  for (const double lambda : {0.5, 20.0}) {
    test_.config.gradmatch.lambda = lambda;
    std::map<std::int64_t, double> oracle;
    for (const auto& [group, budget] : groups_of(test_)) {
      Vector target(plain.g[0].size(), 0.0);
      for (const std::size_t member : group) {
        for (std::size_t d = 0; d < target.size(); ++d) target[d] += plain.g[member][d];
      }
      Positions support;
      Vector weights;
      while (static_cast<std::int64_t>(support.size()) < budget) {
        Vector residual = target;
        for (std::size_t j = 0; j < support.size(); ++j) {
          for (std::size_t d = 0; d < residual.size(); ++d) residual[d] -= weights[j] * plain.g[support[j]][d];
        }
        std::size_t winner = 0;
        double best = 0.0;
        for (const std::size_t i : group) {
          if (std::find(support.begin(), support.end(), i) != support.end()) continue;
          const double here = dot(plain.g[i], residual);
          if (here > best) {
            best = here;
            winner = i;
          }
        }
        ASSERT_GT(best, 0.0);
        support.push_back(winner);
        const Vector all = brute_force_weights(plain.g, support, target, lambda);
        Positions left;
        weights.clear();
        for (std::size_t j = 0; j < support.size(); ++j) {
          if (all[j] <= 0.0) continue;
          left.push_back(support[j]);
          weights.push_back(all[j]);
        }
        support = left;
      }
      for (std::size_t j = 0; j < support.size(); ++j) oracle[test_.ids[support[j]]] = weights[j];
    }
    const SelectionResult result = select("gradmatch");
    ASSERT_EQ(result.kept.size(), oracle.size());
    ASSERT_EQ(result.weights.size(), oracle.size());
    std::size_t i = 0;
    for (const auto& [id, weight] : oracle) {
      EXPECT_EQ(result.kept[i], id);
      EXPECT_NEAR(result.weights[i], weight, 1e-5 * std::max(1.0, weight)) << id;
      ++i;
    }
  }
}

TEST_P(GradMatch, FillsAShortfallWithWeightOne) {
  test_.config.gradmatch.tolerance = 1.0;  // nothing is better than this
  const SelectionResult result = select("gradmatch");
  EXPECT_EQ(result.kept.size(), 18u);
  EXPECT_EQ(result.weights, std::vector<float>(18, 1.0f));
  test_.config.gradmatch.tolerance = 0.3;
  const SelectionResult partly = select("gradmatch");
  EXPECT_EQ(partly.kept.size(), 18u);
  const auto ones = std::count(partly.weights.begin(), partly.weights.end(), 1.0f);
  EXPECT_GT(ones, 0);
  EXPECT_LT(ones, 18);
}

TEST_P(GradMatch, TakesDuplicatesOnce) {
  test_.source.features().copy_(test_.source.features()[0].expand_as(test_.source.features()).clone());
  test_.source.probabilities().copy_(test_.source.probabilities()[0].expand_as(test_.source.probabilities()).clone());
  test_.config.gradmatch.lambda = 0.0;
  test_.config.gradmatch.tolerance = 0.0;
  const SelectionResult result = select("gradmatch");  // one gradient a class: the rest is filled up
  EXPECT_EQ(result.kept.size(), 18u);
  const auto fitted = 18 - std::count(result.weights.begin(), result.weights.end(), 1.0f);
  EXPECT_GE(fitted, 1);
  EXPECT_LE(fitted, 4);
}

TEST_P(GradMatch, ByBatchesIsGradMatchOfTheirSums) {
  const PlainFactors plain(test_.source, test_.ids);
  test_.config.fraction = 0.3;
  test_.config.gradmatch.batch = 4;
  test_.config.gradmatch.tolerance = 0.0;
  const SelectionResult result = select("gradmatch");
  EXPECT_EQ(result.kept.size(), 53u);
  std::map<std::int64_t, float> weight_of;
  for (std::size_t i = 0; i < result.kept.size(); ++i) weight_of[result.kept[i]] = result.weights[i];
  for (const auto& [group, budget] : groups_of(test_)) {
    // Examples of a batch share a weight: no weight that was fitted belongs to more than a batch.
    std::map<float, std::vector<std::size_t>> by_weight;
    for (const std::size_t i : group) {
      if (weight_of.contains(test_.ids[i])) by_weight[weight_of[test_.ids[i]]].push_back(i);
    }
    std::size_t whole = 0;
    Vector residual(plain.g[0].size(), 0.0), target(plain.g[0].size(), 0.0);
    for (const std::size_t i : group) {
      for (std::size_t d = 0; d < target.size(); ++d) target[d] += plain.g[i][d];
    }
    residual = target;
    for (const auto& [weight, members] : by_weight) {
      EXPECT_LE(members.size(), 4u);
      whole += members.size() == 4 ? 1 : 0;
      for (const std::size_t i : members) {
        for (std::size_t d = 0; d < target.size(); ++d) residual[d] -= static_cast<double>(weight) * plain.g[i][d];
      }
    }
    EXPECT_GE(whole, by_weight.size() - 2) << "the last one is cut, and one may have been left over";
    EXPECT_LT(norm(residual), norm(target)) << "the weighted sum comes nearer to that of all";
  }
}

}  // namespace
}  // namespace sage
