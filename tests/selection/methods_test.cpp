// Each method against an oracle that is written the slow way on few examples, and what all of them promise.
#include "selection/methods.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "core/error.h"
#include "method_cases.h"
#include "selection/group_selection.h"
#include "selection/quota.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using testing::cosine;
using testing::distance;
using testing::dot;
using testing::message_of;
using testing::MethodCase;
using testing::norm;
using testing::PlainFactors;
using testing::Vector;

using Positions = std::vector<std::size_t>;

/// Positions among the candidates that are chosen from together, with their budgets.
std::vector<std::pair<Positions, std::int64_t>> groups_of(const MethodCase& test) {
  const auto count = static_cast<std::int64_t>(test.ids.size());
  const std::int64_t total = subset_size(test.config.fraction, count);
  std::vector<std::pair<Positions, std::int64_t>> groups;
  if (!test.config.per_class) {
    groups.push_back({{}, total});
    for (std::size_t i = 0; i < test.ids.size(); ++i) groups[0].first.push_back(i);
    return groups;
  }
  const auto quota = class_quota(total, count_classes(test.labels, test.source.class_count()));
  for (std::size_t c = 0; c < quota.size(); ++c) {
    groups.push_back({{}, quota[c]});
    for (std::size_t i = 0; i < test.ids.size(); ++i) {
      if (test.labels[i] == static_cast<std::int64_t>(c)) groups[c].first.push_back(i);
    }
  }
  return groups;
}

/// Greedy: in each group and step the member with the largest value that `value(chosen so far, candidate)` gives.
std::vector<std::int64_t> greedy_oracle(
    const MethodCase& test,
    const std::function<double(const Positions& group, const Positions& chosen, std::size_t)>& value) {
  std::vector<std::int64_t> kept;
  for (const auto& [group, budget] : groups_of(test)) {
    Positions chosen;
    while (static_cast<std::int64_t>(chosen.size()) < budget) {
      double best = -std::numeric_limits<double>::infinity();
      std::size_t winner = 0;
      for (const std::size_t candidate : group) {
        if (std::find(chosen.begin(), chosen.end(), candidate) != chosen.end()) continue;
        const double here = value(group, chosen, candidate);
        if (here > best) {
          best = here;
          winner = candidate;
        }
      }
      chosen.push_back(winner);
    }
    for (const std::size_t position : chosen) kept.push_back(test.ids[position]);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

class Methods : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    test_.config.per_class = GetParam();
    test_.config.fraction = 0.1;
  }
  SelectionResult select(const char* method) {
    test_.config.method = method;
    return test_.select(*one_);
  }
  MethodCase test_;
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
};
INSTANTIATE_TEST_SUITE_P(PerClassAndGlobal, Methods, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "PerClass" : "Global"; });

TEST_P(Methods, UncertaintyTakesTheLeastCertain) {
  const PlainFactors plain(test_.source, test_.ids);
  const std::map<std::string, std::function<double(Vector)>> scores = {
      {"least_confidence", [](Vector p) { return -*std::max_element(p.begin(), p.end()); }},
      {"entropy",
       [](Vector p) {
         double sum = 0.0;
         for (const double value : p) sum -= value > 0.0 ? value * std::log(value) : 0.0;
         return sum;
       }},
      {"margin", [](Vector p) {
         std::sort(p.rbegin(), p.rend());
         return p[1] - p[0];
       }}};
  std::set<std::vector<std::int64_t>> different;
  for (const auto& [name, score] : scores) {
    SCOPED_TRACE(name);
    test_.config.uncertainty.score = name;
    const SelectionResult result = select("uncertainty");
    EXPECT_EQ(result.kept, greedy_oracle(test_, [&, of = score](const auto&, const auto&, std::size_t i) {
                return of(plain.p[i]);
              }));
    EXPECT_EQ(result.scoring, name);
    for (std::size_t i = 0; i < plain.p.size(); ++i) {
      const double offset = name == "least_confidence" ? 1.0 : 0.0;
      EXPECT_NEAR(result.scores[i], offset + score(plain.p[i]), 1e-6);
    }
    different.insert(result.kept);
  }
  EXPECT_GT(different.size(), 1u);
}

TEST_P(Methods, KCenterTakesTheFarthestFirst) {
  const PlainFactors plain(test_.source, test_.ids);
  const auto oracle = greedy_oracle(test_, [&](const Positions& group, const Positions& chosen, std::size_t i) {
    if (chosen.empty()) {
      Vector mean(plain.h[0].size(), 0.0);
      for (const std::size_t member : group) {
        for (std::size_t f = 0; f < mean.size(); ++f) mean[f] += plain.h[member][f] / static_cast<double>(group.size());
      }
      return -distance(plain.h[i], mean);
    }
    double nearest = std::numeric_limits<double>::infinity();
    for (const std::size_t other : chosen) nearest = std::min(nearest, distance(plain.h[i], plain.h[other]));
    return nearest;
  });
  EXPECT_EQ(select("diversity").kept, oracle);
  EXPECT_EQ(select("k_center").method, "diversity");
}

TEST_P(Methods, HerdingKeepsTheMean) {
  const PlainFactors plain(test_.source, test_.ids);
  const auto oracle = greedy_oracle(test_, [&](const Positions& group, const Positions& chosen, std::size_t i) {
    Vector difference(plain.h[0].size(), 0.0);  // mean of the group less the mean with the candidate
    const double count = static_cast<double>(chosen.size()) + 1.0;
    for (std::size_t f = 0; f < difference.size(); ++f) {
      for (const std::size_t member : group) difference[f] += plain.h[member][f] / static_cast<double>(group.size());
      for (const std::size_t other : chosen) difference[f] -= plain.h[other][f] / count;
      difference[f] -= plain.h[i][f] / count;
    }
    return -norm(difference);
  });
  EXPECT_EQ(select("herding").kept, oracle);
}

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

TEST_P(Methods, GradMatchIsOrthogonalMatchingPursuit) {
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

TEST_P(Methods, GradMatchFillsAShortfallWithWeightOne) {
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

TEST_P(Methods, GradMatchTakesDuplicatesOnce) {
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

TEST_P(Methods, GradMatchByBatchesIsGradMatchOfTheirSums) {
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

TEST_P(Methods, AScopeBeyondTheLastLayerIsNoted) {
  test_.config.gradient.scope = {"full"};
  for (const char* method : {"gradmatch", "craig", "glister"}) {
    const auto warnings = select(method).warnings;
    EXPECT_TRUE(std::any_of(warnings.begin(), warnings.end(), [](const std::string& text) {
      return text.find("selection.gradient.scope is [full]") != std::string::npos;
    })) << method;
  }
  EXPECT_TRUE(select("herding").warnings.empty() || !GetParam());
}

TEST_P(Methods, CraigStandsForAll) {
  const PlainFactors plain(test_.source, test_.ids);
  for (const char* features : {"residual", "gradient"}) {
    SCOPED_TRACE(features);
    test_.config.craig.features = features;
    const auto& points = std::string(features) == "gradient" ? plain.g : plain.r;
    const auto value = [&](const Positions& group, const Positions& chosen) {  // sum of the smallest distances
      double sum = 0.0;
      for (const std::size_t i : group) {
        double nearest = std::numeric_limits<double>::infinity();
        for (const std::size_t j : chosen) nearest = std::min(nearest, distance(points[i], points[j]));
        sum += nearest;
      }
      return sum;
    };
    const auto oracle = greedy_oracle(test_, [&](const Positions& group, const Positions& chosen, std::size_t i) {
      Positions with = chosen;
      with.push_back(i);
      return -value(group, with);
    });
    const SelectionResult result = select("craig");
    EXPECT_EQ(result.kept, oracle);
    double sum = 0.0;
    for (const float weight : result.weights) sum += weight;
    EXPECT_EQ(sum, static_cast<double>(test_.ids.size()));
    for (const auto& [group, budget] : groups_of(test_)) {
      double of_group = 0.0;
      for (std::size_t i = 0; i < result.kept.size(); ++i) {
        const auto position = static_cast<std::size_t>(
            std::lower_bound(test_.ids.begin(), test_.ids.end(), result.kept[i]) - test_.ids.begin());
        if (std::binary_search(group.begin(), group.end(), position)) of_group += result.weights[i];
      }
      EXPECT_EQ(of_group, static_cast<double>(group.size()));
    }
  }
}

TEST_P(Methods, SubmodularFunctionsAreMaximisedGreedily) {
  const PlainFactors plain(test_.source, test_.ids);
  for (const char* features : {"feature", "gradient"}) {
    const auto& points = std::string(features) == "gradient" ? plain.g : plain.h;
    const auto similarity = [&](std::size_t i, std::size_t j) { return 0.5 + 0.5 * cosine(points[i], points[j]); };
    for (const char* function : {"facility_location", "graph_cut"}) {
      SCOPED_TRACE(std::string(function) + " of " + features);
      test_.config.submodular.features = features;
      test_.config.submodular.function = function;
      test_.config.submodular.graph_cut_lambda = 2.0;  // enough to spread them
      const auto oracle = greedy_oracle(test_, [&](const Positions& group, const Positions& chosen, std::size_t i) {
        double value = 0.0;
        if (std::string(function) == "graph_cut") {  // the gain
          for (const std::size_t member : group) value += similarity(member, i);
          for (const std::size_t other : chosen) value -= 2.0 * 2.0 * similarity(other, i);
          return value - 2.0 * similarity(i, i);
        }
        for (const std::size_t member : group) {
          double largest = similarity(member, i);
          for (const std::size_t other : chosen) largest = std::max(largest, similarity(member, other));
          value += largest;
        }
        return value;
      });
      const SelectionResult result = select("submodular");
      EXPECT_EQ(result.kept, oracle);
      EXPECT_TRUE(result.weights.empty());
    }
  }
}

TEST_P(Methods, GlisterFollowsTheLossOnWhatIsHeldOut) {
  const PlainFactors plain(test_.source, test_.ids), judges(test_.source, test_.validation_ids);
  std::set<std::vector<std::int64_t>> different;
  for (const double step : {1e-9, 0.1, 2.0}) {
    test_.config.glister.step = step;
    const auto oracle = greedy_oracle(test_, [&](const Positions& group, const Positions& chosen, std::size_t i) {
      Vector slope(plain.g[0].size(), 0.0);
      for (std::size_t v = 0; v < judges.h.size(); ++v) {
        if (GetParam() && test_.validation_labels[v] != test_.labels[group[0]]) continue;
        // The logits after the step, from the weights of the last layer moved along the mean gradient.
        const std::size_t classes = judges.p[v].size(), features = judges.h[v].size();
        Vector moved(classes);
        double sum = 0.0;
        for (std::size_t c = 0; c < classes; ++c) {
          double change = 0.0;
          for (const std::size_t other : chosen) {
            change += plain.g[other][c];
            for (std::size_t f = 0; f < features; ++f) {
              change += plain.g[other][classes + c * features + f] * judges.h[v][f];
            }
          }
          const double scale = chosen.empty() ? 0.0 : step / static_cast<double>(chosen.size());
          moved[c] = judges.p[v][c] * std::exp(-scale * change);
          sum += moved[c];
        }
        for (std::size_t c = 0; c < classes; ++c) {
          moved[c] = moved[c] / sum - (static_cast<std::int64_t>(c) == test_.validation_labels[v] ? 1.0 : 0.0);
        }
        const Vector g = PlainFactors::gradient(moved, judges.h[v]);
        for (std::size_t d = 0; d < slope.size(); ++d) slope[d] += g[d];
      }
      return dot(plain.g[i], slope);
    });
    const SelectionResult result = select("glister");
    EXPECT_EQ(result.kept, oracle) << step;
    if (GetParam()) {
      EXPECT_TRUE(result.warnings.empty());
    }
    different.insert(result.kept);
  }
  EXPECT_GT(different.size(), 1u) << "the step must matter";
}

TEST_P(Methods, El2nAndGrandTakeTheLargestNorms) {
  const PlainFactors plain(test_.source, test_.ids);
  const SelectionResult el2n = select("el2n");
  EXPECT_EQ(el2n.kept, greedy_oracle(test_, [&](const auto&, const auto&, std::size_t i) { return norm(plain.r[i]); }));
  const SelectionResult grand = select("grand");
  EXPECT_EQ(grand.kept,
            greedy_oracle(test_, [&](const auto&, const auto&, std::size_t i) { return norm(plain.g[i]); }));
  for (std::size_t i = 0; i < plain.r.size(); ++i) {
    EXPECT_NEAR(el2n.scores[i], norm(plain.r[i]), 1e-5);
    EXPECT_NEAR(grand.scores[i], norm(plain.g[i]), 1e-5);
  }
  // Scores that were measured before, over several networks, take their place.
  std::vector<float> given;
  for (std::size_t i = 0; i < plain.r.size(); ++i) given.push_back(static_cast<float>((i * 37) % 176));
  SelectionRequest request = test_.request(*one_);
  request.difficulty = given;
  const SelectionResult averaged = select_grand(request);
  EXPECT_EQ(averaged.scores, given);
  EXPECT_EQ(averaged.kept, greedy_oracle(test_, [&](const auto&, const auto&, std::size_t i) {
              return static_cast<double>(given[i]);
            }));
}

TEST_P(Methods, ForgettingTakesTheMostForgottenAndNeverLearnedFirst) {
  test_.config.fraction = 0.4;
  const SelectionResult result = select("forgetting");
  const auto rank_of = [&](std::size_t i) { return test_.forgotten[i] == kNeverLearned ? 4 : test_.forgotten[i]; };
  for (const auto& [group, budget] : groups_of(test_)) {
    std::int64_t lowest_kept = 99, highest_left = -1, kept = 0;
    for (const std::size_t i : group) {
      EXPECT_EQ(result.scores[i], static_cast<float>(rank_of(i)));
      const bool is_kept = std::binary_search(result.kept.begin(), result.kept.end(), test_.ids[i]);
      kept += is_kept ? 1 : 0;
      if (is_kept) {
        lowest_kept = std::min(lowest_kept, rank_of(i));
      } else {
        highest_left = std::max(highest_left, rank_of(i));
      }
    }
    EXPECT_EQ(kept, budget);
    EXPECT_GE(lowest_kept, highest_left);
    EXPECT_GT(lowest_kept, 0);
  }
}

TEST_P(Methods, WithoutAHistoryForgettingIsRandomAndBalanced) {
  test_.forgotten.clear();
  const SelectionResult result = select("forgetting");
  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_TRUE(contains(result.warnings[0], "no history of forgetting"));
  EXPECT_EQ(result.kept.size(), 18u);
  if (GetParam()) {
    EXPECT_EQ(result.class_histogram, class_quota(18, count_classes(test_.labels, 4)));
  }
  SelectionRequest other = test_.request(*one_);
  other.round = 3;
  EXPECT_NE(select_forgetting(other).kept, result.kept);
  EXPECT_NE(result.kept, greedy_oracle(test_, [](const auto&, const auto&, std::size_t) { return 1.0; }))
      << "not the lowest ids";
}

TEST_P(Methods, CcsCoversAllGradesButTheHardest) {
  test_.config.fraction = 0.3;
  test_.config.ccs.hardest = 0.2;
  test_.config.ccs.strata = 5;
  const SelectionResult result = select("ccs");
  EXPECT_TRUE(result.warnings.empty());
  for (const auto& [group, budget] : groups_of(test_)) {
    Positions order = group;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return result.scores[a] < result.scores[b]; });
    order.resize(order.size() - static_cast<std::size_t>(std::floor(0.2 * static_cast<double>(order.size()) + 0.5)));
    const double low = result.scores[order.front()], high = result.scores[order.back()];
    std::vector<std::int64_t> available(5, 0), kept(5, 0);
    for (const std::size_t i : order) {
      const auto bin =
          std::min<std::size_t>(4, static_cast<std::size_t>((result.scores[i] - low) / (high - low) * 5.0));
      ++available[bin];
      if (std::binary_search(result.kept.begin(), result.kept.end(), test_.ids[i])) ++kept[bin];
    }
    EXPECT_EQ(kept, class_quota(budget, available));  // they sum to the budget: none of the hardest is among them
  }
  test_.config.fraction = 0.9;
  const SelectionResult most = select("ccs");
  EXPECT_EQ(most.kept.size(), 158u);
  ASSERT_EQ(most.warnings.size(), 1u);
  EXPECT_TRUE(contains(most.warnings[0], "selection.ccs.hardest"));
}

TEST_P(Methods, AllKeepExactlyWhatIsAskedForAndRepeatItself) {
  for (const auto& variant : testing::kMethodVariants) {
    SCOPED_TRACE(variant.name);
    variant.change(test_.config);
    for (const double fraction : {0.006, 0.05, 0.37, 1.0}) {
      test_.config.fraction = fraction;
      const SelectionResult result = test_.select(*one_);
      EXPECT_EQ(static_cast<std::int64_t>(result.kept.size()), subset_size(fraction, 176));
      EXPECT_TRUE(std::is_sorted(result.kept.begin(), result.kept.end()));
      EXPECT_EQ(std::adjacent_find(result.kept.begin(), result.kept.end()), result.kept.end());
      for (const std::int64_t id : result.kept) {
        EXPECT_TRUE(std::binary_search(test_.ids.begin(), test_.ids.end(), id));
      }
      if (GetParam()) {
        const auto quota = class_quota(subset_size(fraction, 176), count_classes(test_.labels, 4));
        EXPECT_EQ(result.class_histogram, quota);
      }
      const SelectionResult again = test_.select(*one_);
      EXPECT_EQ(again.kept, result.kept);
      EXPECT_EQ(again.weights, result.weights);
      EXPECT_EQ(again.scores, result.scores);
    }
    test_.config = testing::small_config();
    test_.config.per_class = GetParam();
  }
}

TEST_P(Methods, AnswersThatAreNotFiniteAreWantedLeast) {
  test_.source.features()[1].fill_(std::nanf(""));
  test_.source.probabilities()[1].fill_(std::nanf(""));
  test_.source.matrix()[1].fill_(std::nanf(""));
  for (const char* method : {"uncertainty", "el2n", "grand"}) {
    const SelectionResult result = select(method);
    EXPECT_FALSE(std::binary_search(result.kept.begin(), result.kept.end(), 1)) << method;
    EXPECT_EQ(result.non_finite, 1);
    ASSERT_EQ(result.warnings.size(), 1u);
  }
  for (const char* method : {"diversity", "gradmatch", "craig", "herding", "submodular"}) {
    const SelectionResult result = select(method);
    EXPECT_EQ(result.kept.size(), 18u);
    EXPECT_EQ(result.non_finite, 1) << method;
  }
}

TEST_P(Methods, AStoppedSelectionBeginsAnewAndEndsTheSame) {
  for (const auto& variant : testing::kMethodVariants) {
    SCOPED_TRACE(variant.name);
    test_.config = testing::small_config();
    test_.config.per_class = GetParam();
    test_.config.batch_size = 4;
    variant.change(test_.config);
    const SelectionResult whole = test_.select(*one_);
    SelectionRequest request = test_.request(*one_);
    std::int64_t questions = 0;
    request.stop_requested = [&] { return ++questions == 2; };
    SelectionState state;
    try {
      select_examples(request);
      EXPECT_TRUE(test_.config.method == "forgetting" || test_.config.ccs.score == "forgetting") << "never asked";
      continue;
    } catch (const SelectionStopped& stopped) {
      state = stopped.state();
    }
    request.stop_requested = {};
    request.resume_from = &state;
    EXPECT_EQ(select_examples(request).kept, whole.kept);
    request.seed = 99;
    EXPECT_THROW(select_examples(request), CheckpointError);
  }
}

TEST(MethodNames, AliasesAndWrongNames) {
  EXPECT_EQ(find_selection_method("k_center").name, "diversity");
  const std::string message = message_of<ConfigError>([] { find_selection_method("k_centre"); });
  EXPECT_TRUE(contains(message, "did you mean `k_center`"));
  for (const SelectionMethod& method : selection_methods()) {
    EXPECT_TRUE(contains(message, std::string(method.name))) << method.name;
    EXPECT_FALSE(method.meaning.empty());
  }
}

TEST(MethodNeeds, GlisterNeedsExamplesHeldOut) {
  MethodCase test;
  test.config.method = "glister";
  test.validation_ids.clear();
  test.validation_labels.clear();
  const auto one = make_single_communicator(at::kCPU);
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { test.select(*one); }), "data.validation_fraction"));
}

TEST(MethodNeeds, AClassWithNothingHeldOutFollowsItsOwnExamples) {
  MethodCase test;
  test.config.method = "glister";
  for (std::size_t i = test.validation_ids.size(); i-- > 0;) {
    if (test.validation_labels[i] != 2) continue;
    test.validation_ids.erase(test.validation_ids.begin() + static_cast<std::ptrdiff_t>(i));
    test.validation_labels.erase(test.validation_labels.begin() + static_cast<std::ptrdiff_t>(i));
  }
  const SelectionResult result = test.select(*make_single_communicator(at::kCPU));
  EXPECT_EQ(result.kept.size(), 44u);
  ASSERT_EQ(result.warnings.size(), 1u);
  EXPECT_TRUE(contains(result.warnings[0], "held out of class 2"));
}

TEST(Groups, ArePartsOfTheClassesAndDealtEvenly) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 100; ++i) labels.push_back(i % 10 == 0 ? 0 : 1);  // 10 and 90
  const std::vector<Group> groups = cut_into_parts(group_by_class(labels, 3, 20), 25, 1, 0);
  ASSERT_EQ(groups.size(), 5u);
  std::set<std::int64_t> all;
  std::int64_t budget = 0;
  for (const Group& group : groups) {
    EXPECT_LE(group.members.size(), 25u);
    EXPECT_LE(group.budget, static_cast<std::int64_t>(group.members.size()));
    EXPECT_TRUE(std::is_sorted(group.members.begin(), group.members.end()));
    for (const std::int64_t member : group.members) {
      EXPECT_EQ(labels[static_cast<std::size_t>(member)], group.label);
      EXPECT_TRUE(all.insert(member).second);
    }
    budget += group.budget;
  }
  EXPECT_EQ(all.size(), 100u);
  EXPECT_EQ(budget, 20);
  const std::vector<int> owners = deal_out(groups, 3);
  std::vector<std::size_t> load(3, 0);
  for (std::size_t g = 0; g < groups.size(); ++g) load[static_cast<std::size_t>(owners[g])] += groups[g].members.size();
  EXPECT_LE(*std::max_element(load.begin(), load.end()) - *std::min_element(load.begin(), load.end()), 25u);
}

TEST(Groups, AKernelBeyondTheLimitIsCut) {
  MethodCase test(12000, 2, 4, 6);
  test.config.method = "craig";
  test.config.memory_limit_mib = 4;  // kernels of at most 1,024
  test.config.fraction = 0.005;
  for (const bool per_class : {true, false}) {
    test.config.per_class = per_class;
    const SelectionResult result = test.select(*make_single_communicator(at::kCPU));
    EXPECT_EQ(result.kept.size(), 48u);
    double sum = 0.0;
    for (const float weight : result.weights) sum += weight;
    EXPECT_EQ(sum, 9600.0);
  }
}

}  // namespace
}  // namespace sage
