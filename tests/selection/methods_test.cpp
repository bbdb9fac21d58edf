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
using testing::groups_of;
using testing::message_of;
using testing::MethodCase;
using testing::norm;
using testing::PlainFactors;
using testing::Positions;
using testing::Vector;

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

class Methods : public testing::MethodTest {};
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

}  // namespace
}  // namespace sage
