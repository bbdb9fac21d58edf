// The choices of progressive data dropout: budgets, quotas and draws, against their definitions.
#include "training/dropout/policies.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "core/random.h"
#include "training/dropout/difficulty.h"
#include "training/dropout/options.h"
#include "training/evaluation.h"

namespace sage {
namespace {

/// `size` examples of `classes` classes, most of them of the first; about a third is hard.
ScoredBatch made_batch(std::int64_t size, std::int64_t classes, std::uint64_t seed) {
  ScoredBatch batch;
  RandomStream stream(seed, "batch");
  for (std::int64_t i = 0; i < size; ++i) {
    batch.ids.push_back(1000 + 7 * i);
    const double u = stream.uniform();
    batch.labels.push_back(static_cast<std::int64_t>(u * u * static_cast<double>(classes)));
    batch.p_true.push_back(stream.uniform());
    batch.is_hard.push_back(is_hard(batch.p_true.back(), stream.uniform() < 0.9, 0.3, HardRule::either) ? 1 : 0);
  }
  return batch;
}

ScoredBatch reordered(const ScoredBatch& batch, const std::vector<std::int64_t>& order) {
  ScoredBatch other;
  for (const std::int64_t i : order) {
    const auto from = static_cast<std::size_t>(i);
    other.ids.push_back(batch.ids[from]);
    other.labels.push_back(batch.labels[from]);
    other.p_true.push_back(batch.p_true[from]);
    other.is_hard.push_back(batch.is_hard[from]);
  }
  return other;
}

std::set<std::int64_t> ids_of(const ScoredBatch& batch, const KeptMask& mask) {
  std::set<std::int64_t> ids;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] != 0) ids.insert(batch.ids[i]);
  }
  return ids;
}

std::vector<std::int64_t> counts_of(const ScoredBatch& batch, const KeptMask& mask, std::int64_t classes) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(classes), 0);
  for (std::size_t i = 0; i < mask.size(); ++i) counts[static_cast<std::size_t>(batch.labels[i])] += mask[i];
  return counts;
}

TEST(DropoutPolicies, HardIsWhatTheRuleSays) {
  for (const HardRule rule : {HardRule::true_class, HardRule::either}) {
    EXPECT_TRUE(is_hard(0.29, true, 0.3, rule));
    EXPECT_FALSE(is_hard(0.3, true, 0.3, rule));
    EXPECT_EQ(is_hard(0.35, false, 0.3, rule), rule == HardRule::either);
    // Threshold 0: misclassified, however unlikely the class.
    EXPECT_TRUE(is_hard(0.4, false, 0.0, rule));
    EXPECT_FALSE(is_hard(0.01, true, 0.0, rule));
    EXPECT_TRUE(is_hard(std::nan(""), true, 0.3, rule) && is_hard(-1.0, true, 0.0, rule)) << "has to be seen";
  }
  DropoutConfig config;
  for (const auto& [mode, rule] : std::map<std::string, HardRule>{{"dbpd", HardRule::true_class},
                                                                  {"smrd", HardRule::true_class},
                                                                  {"psmrd", HardRule::either},
                                                                  {"apd", HardRule::either}}) {
    config.mode = mode;
    config.hard_rule = "auto";
    EXPECT_EQ(to_hard_rule(config), rule) << mode;
    config.hard_rule = "true_class";
    EXPECT_EQ(to_hard_rule(config), HardRule::true_class);
  }
}

TEST(DropoutPolicies, NoChoiceDependsOnTheOrderOfTheBatch) {
  const DrawKey key{5, 3, 17};
  const std::vector<double> proportions{0.1, 0.4, 0.2, 0.3};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const ScoredBatch batch = made_batch(61, 4, seed);
    const ScoredBatch other = reordered(batch, random_permutation(61, RandomStream(seed, "order")));
    EXPECT_EQ(ids_of(batch, keep_random(batch.ids, 20, key)), ids_of(other, keep_random(other.ids, 20, key)));
    EXPECT_EQ(ids_of(batch, keep_stratified(batch, 4)), ids_of(other, keep_stratified(other, 4)));
    EXPECT_EQ(ids_of(batch, keep_adaptive(batch, proportions, key)),
              ids_of(other, keep_adaptive(other, proportions, key)));
  }
}

TEST(DropoutPolicies, RandomOnesAreExactlySoManyAndEachAsOften) {
  std::vector<std::int64_t> ids(16);
  std::iota(ids.begin(), ids.end(), 100);
  std::vector<int> kept(16, 0);
  for (std::int64_t i = 0; i < 4000; ++i) {
    const KeptMask mask = keep_random(ids, 5, {9, i / 100, i % 100});
    EXPECT_EQ(kept_count(mask), 5);
    for (std::size_t k = 0; k < 16; ++k) kept[k] += mask[k];
  }
  for (const int count : kept) EXPECT_NEAR(count, 1250, 6 * std::sqrt(4000 * 5.0 / 16 * 11.0 / 16));
  EXPECT_EQ(kept_count(keep_random(ids, 0, {})), 0);
  EXPECT_EQ(kept_count(keep_random(ids, 99, {})), 16);
  EXPECT_NE(keep_random(ids, 5, {9, 0, 1}), keep_random(ids, 5, {9, 0, 2}));
  EXPECT_NE(keep_random(ids, 5, {9, 0, 1}), keep_random(ids, 5, {9, 1, 1}));
  EXPECT_NE(keep_random(ids, 5, {9, 0, 1}), keep_random(ids, 5, {8, 0, 1}));
}

TEST(DropoutPolicies, StratifiedQuotasAreProportionalAndLeaveNoHardClassOut) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomStream stream(seed, "quotas");
    const auto classes = 2 + stream.below(30);
    std::vector<std::int64_t> count, hard;
    for (std::uint64_t c = 0; c < classes; ++c) {
      count.push_back(static_cast<std::int64_t>(stream.below(12)));
      hard.push_back(static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(count.back()) + 1)));
      if (stream.below(2) == 0) hard.back() = std::min<std::int64_t>(hard.back(), 1);
    }
    const auto quotas = stratified_quotas(count, hard);
    const auto total = [](const std::vector<std::int64_t>& v) {
      return std::accumulate(v.begin(), v.end(), std::int64_t{0});
    };
    EXPECT_EQ(total(quotas), total(hard));
    const double share = total(count) > 0 ? static_cast<double>(total(hard)) / static_cast<double>(total(count)) : 0.0;
    bool moved = false;
    for (std::size_t c = 0; c < classes; ++c) {
      EXPECT_LE(quotas[c], count[c]);
      EXPECT_GE(quotas[c], hard[c] > 0 ? 1 : 0);
      moved = moved || (hard[c] > 0 && share * static_cast<double>(count[c]) < 1.0);
    }
    for (std::size_t c = 0; c < classes && !moved; ++c) {
      EXPECT_LT(std::abs(static_cast<double>(quotas[c]) - share * static_cast<double>(count[c])), 1.0);
    }
  }
  // Two rare classes with a hard example, two common ones without: the only two places go to the rare ones.
  EXPECT_EQ(stratified_quotas(std::vector<std::int64_t>{1, 1, 9, 9}, std::vector<std::int64_t>{1, 1, 0, 0}),
            (std::vector<std::int64_t>{1, 1, 0, 0}));
}

TEST(DropoutPolicies, StratifiedKeepsTheHardestOfEachClass) {
  const ScoredBatch batch = made_batch(80, 5, 4);
  const KeptMask mask = keep_stratified(batch, 5);
  EXPECT_EQ(kept_count(mask), batch.hard_count());
  for (std::size_t in = 0; in < batch.size(); ++in) {
    for (std::size_t out = 0; out < batch.size(); ++out) {
      if (batch.labels[in] != batch.labels[out] || mask[in] == 0 || mask[out] != 0) continue;
      EXPECT_GE(batch.is_hard[in], batch.is_hard[out]);
      if (batch.is_hard[in] == batch.is_hard[out]) {
        EXPECT_LE(batch.p_true[in], batch.p_true[out]);
      }
    }
  }
}

TEST(DropoutPolicies, LargestRemaindersSumToTheBudgetForAnyNumberOfClasses) {
  for (std::int64_t classes = 2; classes <= 1000; classes += classes < 20 ? 1 : 49) {
    RandomStream stream(static_cast<std::uint64_t>(classes), "weights");
    std::vector<double> weights;
    for (std::int64_t c = 0; c < classes; ++c) weights.push_back(stream.below(10) == 0 ? 0.0 : stream.uniform());
    weights[0] = 0.5;
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (const std::int64_t budget : {0, 1, 2, 7, 31, 50, 128, 4096}) {
      const auto quotas = largest_remainders(budget, weights);
      EXPECT_EQ(std::accumulate(quotas.begin(), quotas.end(), std::int64_t{0}), budget) << classes;
      for (std::size_t c = 0; c < weights.size(); ++c) {
        EXPECT_LT(std::abs(static_cast<double>(quotas[c]) - static_cast<double>(budget) * weights[c] / sum), 1.0);
        if (weights[c] == 0.0) {
          EXPECT_EQ(quotas[c], 0);
        }
      }
    }
  }
  // By hand: 7 x (.5, .3, .2) = 3.5, 2.1, 1.4.
  EXPECT_EQ(largest_remainders(7, std::vector<double>{5, 3, 2}), (std::vector<std::int64_t>{4, 2, 1}));
  EXPECT_EQ(largest_remainders(1, std::vector<double>{1, 1, 1}), (std::vector<std::int64_t>{1, 0, 0}));
}

TEST(DropoutPolicies, AdaptiveKeepsExactlyTheBudgetAndFollowsTheProportions) {
  for (const std::int64_t classes : {2, 3, 10, 100, 1000}) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const ScoredBatch batch = made_batch(64, classes, seed);
      const std::vector<double> proportions(static_cast<std::size_t>(classes), 1.0 / static_cast<double>(classes));
      const KeptMask mask = keep_adaptive(batch, proportions, {seed, 1, 2});
      EXPECT_EQ(kept_count(mask), batch.hard_count()) << classes << " classes";
    }
  }
  // 40 examples of each of two classes, 20 hard in all, proportions 3 : 1.
  ScoredBatch batch;
  for (std::int64_t i = 0; i < 80; ++i) {
    batch.ids.push_back(i);
    batch.labels.push_back(i % 2);
    batch.p_true.push_back(0.5);
    batch.is_hard.push_back(i < 20 ? 1 : 0);
  }
  const std::vector<double> proportions{0.3, 0.1, 0.6};  // the third class is not in the batch
  EXPECT_EQ(counts_of(batch, keep_adaptive(batch, proportions, {1, 1, 1}), 3), (std::vector<std::int64_t>{15, 5, 0}));
  // Of a class that has too few, the rest is made up for by the other.
  for (std::size_t i = 0; i < 80; ++i) batch.labels[i] = i < 4 ? 0 : 1;
  EXPECT_EQ(counts_of(batch, keep_adaptive(batch, proportions, {1, 1, 1}), 3), (std::vector<std::int64_t>{4, 16, 0}));
  // Who is kept has nothing to do with who is hard.
  int hard_kept = 0;
  for (std::int64_t draw = 0; draw < 200; ++draw) {
    const KeptMask mask = keep_adaptive(batch, proportions, {1, 2, draw});
    for (std::size_t i = 4; i < 80; ++i) hard_kept += mask[i] != 0 && batch.is_hard[i] != 0 ? 1 : 0;
  }
  EXPECT_NEAR(hard_kept / 200.0, 16.0 * 16.0 / 76.0, 0.6);
}

TEST(DropoutPolicies, TheScheduleMakesThePublishedEffectiveEpochs) {
  // Batches of 32 in 200 epochs, the last of which is on everything.
  const auto effective = [](double gamma) {
    double epochs = 1.0;
    for (std::int64_t epoch = 0; epoch < 199; ++epoch)
      epochs += static_cast<double>(scheduled_count(gamma, epoch, 32)) / 32;
    return epochs;
  };
  EXPECT_NEAR(effective(0.95), 19.5, 0.05);
  EXPECT_NEAR(effective(0.99), 84.3, 0.05);
  EXPECT_EQ(scheduled_count(1.0, 50, 32), 32);
}

TEST(ClassDifficulty, IsAMovingAverageAndMakesProportions) {
  const std::vector<std::int64_t> counts{60, 30, 10};
  ClassDifficulty state(counts, 0.1, 0.01);
  EXPECT_EQ(state.difficulty(), (std::vector<double>{0.5, 0.5, 0.5}));
  const auto start = state.proportions();
  for (std::size_t c = 0; c < 3; ++c)
    EXPECT_NEAR(start[c], static_cast<double>(counts[c]) / 100, 1e-12) << "as the data";
  state.update(std::vector<std::int64_t>{6, 30, 0}, std::vector<std::int64_t>{60, 30, 0});
  EXPECT_NEAR(state.difficulty()[0], 0.9 * 0.5 + 0.1 * 0.1, 1e-15);
  EXPECT_NEAR(state.difficulty()[1], 0.9 * 0.5 + 0.1 * 1.0, 1e-15);
  EXPECT_EQ(state.difficulty()[2], 0.5) << "not seen";
  const auto next = state.proportions();
  const double a = 0.6 * 0.47, b = 0.3 * 0.56, c = 0.1 * 0.51;
  EXPECT_NEAR(next[0], a / (a + b + c), 1e-12);
  EXPECT_NEAR(next[1], b / (a + b + c), 1e-12);
  EXPECT_NEAR(next[2], c / (a + b + c), 1e-12);
  // A class that is always right is not forgotten.
  for (int epoch = 0; epoch < 500; ++epoch) state.update(std::vector<std::int64_t>{0, 30, 10}, counts);
  EXPECT_NEAR(state.proportions()[0], 0.6 * 0.01 / (0.6 * 0.01 + 0.4 * 1.01), 1e-9);
}

TEST(InfoBatch, PrunesBelowTheMeanAndRescalesSoThatTheSumStays) {
  std::vector<std::int64_t> ids(4000);
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> scores(4000);
  RandomStream stream(2, "scores");
  for (float& score : scores) score = static_cast<float>(stream.uniform());
  scores[7] = std::numeric_limits<float>::quiet_NaN();
  double mean = 0.0;
  for (const float score : scores) mean += std::isfinite(score) ? score / 3999.0 : 0.0;
  double sum = 0.0;
  int low = 0;
  const PrunedEpoch epoch = prune_epoch(ids, scores, 0.75, 1, 3);
  for (std::size_t i = 0; i < epoch.ids.size(); ++i) {
    const float score = scores[static_cast<std::size_t>(epoch.ids[i])];
    const bool is_low = std::isfinite(score) && score < mean;
    EXPECT_EQ(epoch.weights[i], is_low ? 4.0F : 1.0F);
    low += is_low ? 1 : 0;
    sum += epoch.weights[i];
  }
  EXPECT_NEAR(low, 500, 120);
  EXPECT_NEAR(sum, 4000, 500);
  EXPECT_TRUE(std::is_sorted(epoch.ids.begin(), epoch.ids.end()));
  const std::set<std::int64_t> kept(epoch.ids.begin(), epoch.ids.end());
  for (std::int64_t id = 0; id < 4000; ++id) {
    if (!(scores[static_cast<std::size_t>(id)] < mean)) {
      EXPECT_TRUE(kept.contains(id)) << id;
    }
  }
  EXPECT_EQ(prune_epoch(ids, scores, 0.75, 1, 3).ids, epoch.ids);
  EXPECT_NE(prune_epoch(ids, scores, 0.75, 1, 4).ids, epoch.ids);
  // Before anything is known, and with nothing to prune, all are kept.
  EXPECT_EQ(prune_epoch(ids, std::vector<float>(4000, std::nanf("")), 0.75, 1, 0).ids, ids);
  EXPECT_EQ(prune_epoch(ids, std::vector<float>(4000, 1.0F), 0.75, 1, 0).ids, ids);
  EXPECT_EQ(prune_epoch(ids, scores, 0.0, 1, 3).ids, ids);
}

TEST(DropoutOptions, TheLastEpochsAreOnEverything) {
  DropoutConfig config;
  config.mode = "dbpd";
  EXPECT_EQ(revision_epoch(config, 200), 199);
  config.start_revision = 20;
  EXPECT_EQ(revision_epoch(config, 200), 20);
  EXPECT_EQ(dropout_warning(config, 200), "");
  const auto warns = [&](std::int64_t epochs, const std::string& of) {
    return dropout_warning(config, epochs).find(of) != std::string::npos;
  };
  EXPECT_TRUE(warns(20, "none of them trains on everything"));
  config.start_revision = -1;
  config.mode = "infobatch";
  EXPECT_EQ(revision_epoch(config, 200), 175);
  config.anneal = 0.2;
  EXPECT_EQ(revision_epoch(config, 5), 4);
  config.anneal = 0.0;
  EXPECT_EQ(revision_epoch(config, 5), 5);

  // Where nothing is ever left out, and nobody has asked for that.
  const std::string never = "dropout.mode infobatch never leaves anything out: the run has ";
  EXPECT_EQ(dropout_warning(config, 2), "");
  EXPECT_TRUE(warns(1, never + "1 epoch, none of them between the first, which knows no losses yet"));
  config.anneal = 0.5;
  EXPECT_TRUE(warns(2, never + "2 epochs, ")) << "one that knows no losses, one on everything";
  EXPECT_TRUE(warns(2, "dropout.anneal is 0.5"));
  EXPECT_EQ(dropout_warning(config, 4), "") << "the second is pruned";
  config.anneal = 1.0;
  EXPECT_TRUE(warns(200, never + "200 epochs"));
  config.start_revision = 1;
  EXPECT_TRUE(warns(200, never + "200 epochs"));
  config.start_revision = 2;
  EXPECT_EQ(dropout_warning(config, 200), "");
  for (const char* mode : {"dbpd", "apd"}) {
    config.mode = mode;
    config.start_revision = -1;
    EXPECT_TRUE(warns(1, std::string("dropout.mode ") + mode + " never leaves anything out: the run has 1 epoch, "));
    EXPECT_TRUE(warns(1, "dropout.start_revision=1"));
    EXPECT_EQ(dropout_warning(config, 2), "");
    config.start_revision = 0;
    EXPECT_EQ(dropout_warning(config, 1), "") << "as it was asked for";
    config.start_revision = 1;
    EXPECT_TRUE(warns(1, "none of them trains on everything")) << "and the epoch leaves something out";
  }
  config.mode = "none";
  config.start_revision = -1;
  EXPECT_EQ(dropout_warning(config, 1), "");
}

/// The measure of evaluation under imbalance: by its definition, precision and recall class by class.
TEST(Evaluation, F1IsTheMeanOverTheClassesThatOccur) {
  const at::Tensor confusion = at::tensor({5, 2, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0}, at::kLong).view({4, 4});
  double sum = 0.0;
  for (int c = 0; c < 4; ++c) {
    const double right = confusion[c][c].item<double>();
    const double precision = right / std::max(1.0, confusion.select(1, c).sum().item<double>());
    const double recall = right / std::max(1.0, confusion[c].sum().item<double>());
    sum += precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0.0;
  }
  // The third class does not occur; the fourth does, and is never right.
  EXPECT_NEAR(f1_macro(confusion), sum / 3, 1e-12);
  EXPECT_TRUE(std::isnan(f1_macro(at::zeros({4, 4}, at::kLong))));
}

}  // namespace
}  // namespace sage
