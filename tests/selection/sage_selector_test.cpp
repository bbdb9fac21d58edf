#include "selection/sage_selector.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "selection/detection.h"
#include "selection/label_filter.h"
#include "selection/quota.h"
#include "selection_cases.h"
#include "support/matrices.h"

namespace sage {
namespace {

using testing::all_ids;
using testing::ClassifierSource;
using testing::overlap;
using testing::select_from;
using testing::small_config;

class SageSelectorTest : public ::testing::Test {
 protected:
  SelectionResult select(const SelectionConfig& config) {
    return select_from(source_, config, *one_, all_ids(source_));
  }
  double wrong_share(const std::vector<std::int64_t>& ids) const {
    double wrong = 0.0;
    for (std::int64_t id : ids) wrong += source_.wrong[static_cast<std::size_t>(id)] ? 1.0 : 0.0;
    return wrong / static_cast<double>(std::max<std::size_t>(ids.size(), 1));
  }

  ClassifierSource source_{600, 5, 12, 0.2, 3};  // D = 65
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
};

/// Agreement the slow way, from a metric M = S^T S: <z_i, z_j> = g_i M g_j / sqrt(g_i M g_i  g_j M g_j).
std::vector<double> slow_agreement(const at::Tensor& gradients, const at::Tensor& metric,
                                   const std::vector<std::int64_t>& labels) {
  const at::Tensor g = gradients.to(at::kDouble);
  const at::Tensor products = at::mm(at::mm(g, metric), g.t());
  const at::Tensor norms = products.diagonal().sqrt();
  const at::Tensor cosines = products / norms.unsqueeze(1) / norms.unsqueeze(0);
  const at::Tensor held = cosines.contiguous();
  const double* cosine = held.const_data_ptr<double>();
  const std::size_t n = labels.size();
  std::vector<double> agreement;
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0.0, square = 0.0;
    for (std::size_t j = 0; j < n; ++j) {
      if (labels[j] != labels[i]) continue;
      sum += cosine[i * n + j];
      for (std::size_t k = 0; k < n; ++k) {
        if (labels[k] == labels[i]) square += cosine[j * n + k];
      }
    }
    agreement.push_back(sum / std::sqrt(square));
  }
  return agreement;
}

TEST_F(SageSelectorTest, ExactScoresAreThoseOfTheCovariance) {
  ClassifierSource source(120, 4, 6, 0.2, 9);
  SelectionConfig config = small_config();
  config.sketch.size = 16;  // D = 28 <= 64: the exact covariance
  const SelectionResult result = select_from(source, config, *one_, all_ids(source));
  ASSERT_TRUE(result.certificate.has_value());
  EXPECT_EQ(result.certificate->sketch, "exact covariance");
  EXPECT_TRUE(result.certificate->exact);
  EXPECT_EQ(result.certificate->error_bound, 0.0);
  EXPECT_EQ(result.certificate->rows_seen, 120);
  const std::vector<double> oracle =
      slow_agreement(source.matrix(), testing::second_moment(source.matrix()), source.labels);
  ASSERT_EQ(result.scores.size(), oracle.size());
  std::vector<float> as_float;
  for (std::size_t i = 0; i < oracle.size(); ++i) {
    EXPECT_NEAR(result.scores[i], oracle[i], 2e-5);
    as_float.push_back(static_cast<float>(oracle[i]));
  }
  const auto quota = class_quota(30, count_classes(source.labels, 4));
  EXPECT_GE(overlap(result.kept, highest_of_each_class(as_float, source.labels, quota)), 0.99);
}

TEST_F(SageSelectorTest, SketchedScoresComeWithACertificate) {
  const SelectionResult result = select(small_config());
  ASSERT_TRUE(result.certificate.has_value());
  const Certificate& c = *result.certificate;
  EXPECT_EQ(c.sketch, "frequent directions");
  EXPECT_FALSE(c.exact);
  ASSERT_TRUE(c.error_bound && c.relative_error);
  EXPECT_GT(*c.error_bound, 0.0);
  const at::Tensor moment = testing::second_moment(source_.matrix());
  EXPECT_LE(*c.error_bound, testing::promised_error(source_.matrix(), 8) * (1 + 1e-5));
  EXPECT_NEAR(c.squared_norm, moment.trace().item<double>(), 1e-6 * c.squared_norm);
  EXPECT_NEAR(*c.relative_error, *c.error_bound / c.largest_eigenvalue, 1e-12);
  const double largest = testing::largest_eigenvalue(moment);
  EXPECT_LE(c.largest_eigenvalue, largest * (1 + 1e-6));
  EXPECT_GE(c.largest_eigenvalue, largest - *c.error_bound);
  EXPECT_EQ(c.rows, 7);
  EXPECT_EQ(c.rows_seen, 600);
  EXPECT_EQ(c.shards, 16);  // 600 / 32 = 18
  for (const double strength : result.consensus_strength) {
    EXPECT_GT(strength, 0.1);
    EXPECT_LE(strength, 1.0);
  }
}

TEST_F(SageSelectorTest, KeepsExactlyTheQuotaOfEveryClass) {
  for (const double fraction : {0.013, 0.05, 0.25, 0.5, 1.0}) {
    SelectionConfig config = small_config();
    config.fraction = fraction;
    for (const char* keep : {"top", "filter"}) {
      config.keep = keep;
      const SelectionResult result = select(config);
      const std::int64_t size = subset_size(fraction, 600);
      EXPECT_EQ(static_cast<std::int64_t>(result.kept.size()), size);
      EXPECT_TRUE(std::is_sorted(result.kept.begin(), result.kept.end()));
      EXPECT_EQ(std::adjacent_find(result.kept.begin(), result.kept.end()), result.kept.end());
      EXPECT_EQ(std::accumulate(result.class_histogram.begin(), result.class_histogram.end(), std::int64_t{0}), size);
      if (result.doubtful.empty()) {
        EXPECT_EQ(result.class_histogram, class_quota(size, count_classes(source_.labels, 5)));
      }
    }
  }
  SelectionConfig config = small_config();
  config.fraction = 0.0005;
  EXPECT_THROW(select(config), ConfigError);
}

TEST_F(SageSelectorTest, TopKeepsWhatAgrees) {
  const SelectionResult result = select(small_config());
  EXPECT_NEAR(wrong_share(all_ids(source_)), 0.2, 0.05);
  EXPECT_LT(wrong_share(result.kept), 0.02);
  EXPECT_EQ(result.degenerate, 0);
  EXPECT_FALSE(result.estimated_noise.has_value());
  // Every example that was kept scores at least as high as every one of its class that was not.
  std::vector<float> lowest(5, 2.0f), best_left(5, -2.0f);
  for (std::size_t i = 0; i < result.scores.size(); ++i) {
    const bool kept = std::binary_search(result.kept.begin(), result.kept.end(), static_cast<std::int64_t>(i));
    float& bound = (kept ? lowest : best_left)[static_cast<std::size_t>(source_.labels[i])];
    bound = kept ? std::min(bound, result.scores[i]) : std::max(bound, result.scores[i]);
  }
  for (std::size_t c = 0; c < 5; ++c) EXPECT_GE(lowest[c], best_left[c]);
}

TEST_F(SageSelectorTest, FilterFindsPlantedNoise) {
  SelectionConfig config = small_config();
  config.keep = "filter";
  const SelectionResult result = select(config);
  ASSERT_TRUE(result.estimated_noise.has_value());
  const double noise = wrong_share(all_ids(source_));
  EXPECT_NEAR(*result.estimated_noise, noise, 0.05);
  EXPECT_GT(wrong_share(result.doubtful), 0.9) << "what is cut off is wrong";
  EXPECT_LT(wrong_share(result.kept), 0.5 * noise) << "at least half of the wrong labels are gone";
  std::vector<std::int64_t> both;
  std::set_intersection(result.kept.begin(), result.kept.end(), result.doubtful.begin(), result.doubtful.end(),
                        std::back_inserter(both));
  EXPECT_TRUE(both.empty());
  EXPECT_EQ(*std::max_element(result.class_histogram.begin(), result.class_histogram.end()), 30);
  // Another round draws others from the same rest.
  const SelectionResult again = select_from(source_, config, *one_, all_ids(source_), 1, 1);
  EXPECT_EQ(again.doubtful, result.doubtful);
  EXPECT_LT(overlap(again.kept, result.kept), 0.7);
}

TEST_F(SageSelectorTest, FilterByWhatPeersDoubt) {
  SelectionConfig config = small_config();
  config.keep = "filter";
  for (const char* count : {"either", "chance", "confident"}) {
    config.filter.count = count;
    config.filter.by = "agreement";
    const SelectionResult ours = select(config);
    for (const char* by : {"small_loss", "confident_learning"}) {
      config.filter.by = by;
      const SelectionResult result = select(config);
      EXPECT_EQ(result.scores, ours.scores) << "scores stay agreement";
      EXPECT_EQ(result.doubtful.size(), ours.doubtful.size()) << "as many";
      EXPECT_NE(result.doubtful, ours.doubtful) << "but others";
      EXPECT_GT(wrong_share(result.doubtful), 0.9);
      // Of each class those that are trusted least.
      const std::vector<float>& trust =
          config.filter.by == "small_loss" ? result.peers.small_loss : result.peers.confident_learning;
      std::vector<std::int64_t> doubted;
      for (const std::int64_t id : result.doubtful) doubted.push_back(source_.labels[static_cast<std::size_t>(id)]);
      EXPECT_EQ(result.doubtful, least_trusted(trust, source_.labels, count_classes(doubted, 5)));
    }
  }
}

TEST_F(SageSelectorTest, FilterLeavesCleanLabelsAlone) {
  ClassifierSource clean(600, 5, 12, 0.0, 3);
  SelectionConfig config = small_config();
  config.keep = "filter";
  const SelectionResult result = select_from(clean, config, *one_, all_ids(clean));
  EXPECT_LT(*result.estimated_noise, 0.03);
  EXPECT_TRUE(result.doubtful.empty());
}

TEST_F(SageSelectorTest, FilterWithAFixedCutAndWithLittleRoom) {
  SelectionConfig config = small_config();
  config.keep = "filter";
  config.filter.drop = 0.3;
  const SelectionResult result = select(config);
  EXPECT_FALSE(result.estimated_noise.has_value());
  std::int64_t expected = 0;
  for (std::int64_t n : count_classes(source_.labels, 5))
    expected += static_cast<std::int64_t>(std::floor(0.3 * n + 0.5));
  EXPECT_EQ(static_cast<std::int64_t>(result.doubtful.size()), expected);
  EXPECT_LT(wrong_share(result.kept), 0.02);
  config.fraction = 0.9;  // 60 may go, no more
  const SelectionResult tight = select(config);
  EXPECT_EQ(tight.doubtful.size(), 60u);
  EXPECT_EQ(tight.kept.size(), 540u);
  EXPECT_FALSE(tight.warnings.empty());
  config.filter.drop = 1.0;
  EXPECT_THROW(select(config), ConfigError);
}

TEST_F(SageSelectorTest, RecomputedEqualsCached) {
  const std::int64_t batches = 48;  // 16 shards of 37 or 38 examples in micro-batches of 16
  for (const char* method : {"fd", "random_projection"}) {
    SelectionConfig config = small_config();
    config.keep = "filter";
    config.sketch.method = method;
    const auto model_runs = [&](const char* scores, bool can_cache) {
      config.scores = scores;
      source_.can_cache = can_cache;
      source_.model_runs = 0;
      const SelectionResult result = select(config);
      EXPECT_EQ(result.scores_kept, scores);
      EXPECT_FALSE(source_.caching);
      return std::pair(result, source_.model_runs);
    };
    const auto [features, one_pass] = model_runs("cached", true);
    const auto [vectors, two_passes] = model_runs("cached", false);
    const auto [recomputed, three_passes] = model_runs("recomputed", true);
    EXPECT_EQ(one_pass, batches) << "kept features spare every further run of the model";
    EXPECT_EQ(two_passes, 2 * batches) << "kept vectors spare the third";
    EXPECT_EQ(three_passes, 3 * batches);
    for (const SelectionResult& result : {vectors, recomputed}) {
      EXPECT_EQ(result.scores, features.scores);
      EXPECT_EQ(result.kept, features.kept);
    }
    config.scores = "auto";
    for (const bool can_cache : {true, false}) {
      source_.can_cache = can_cache;
      config.memory_limit_mib = 1;
      EXPECT_EQ(select(config).scores_kept, "cached");
      config.memory_limit_mib = 0;
      EXPECT_EQ(select(config).scores_kept, "recomputed");
    }
  }
}

TEST_F(SageSelectorTest, GradientNormIsTheNorm) {
  SelectionConfig config = small_config();
  config.scoring = "gradient_norm";
  config.per_class = false;
  const SelectionResult result = select(config);
  for (std::int64_t i = 0; i < 600; ++i) {
    const double norm = source_.matrix()[i].to(at::kDouble).norm().item<double>();
    EXPECT_NEAR(result.scores[static_cast<std::size_t>(i)], norm, 1e-5 * norm);
  }
  EXPECT_EQ(result.kept, highest(result.scores, 150));
  EXPECT_FALSE(result.certificate.has_value());
  EXPECT_GT(wrong_share(result.kept), 0.6) << "wrong labels have the largest gradients";
  config.keep = "filter";  // so the largest norms are cut off
  EXPECT_LT(wrong_share(select(config).kept), 0.1);
}

TEST_F(SageSelectorTest, RandomProjectionKeepsNearlyTheSame) {
  SelectionConfig config = small_config();
  config.sketch.method = "random_projection";
  config.sketch.size = 400;
  const SelectionResult result = select(config);
  EXPECT_EQ(source_.gradient_calls, 0) << "needs no first pass";
  EXPECT_EQ(result.certificate->sketch, "random projection");
  const at::Tensor identity = at::eye(65, at::kDouble);
  const std::vector<double> oracle = slow_agreement(source_.matrix(), identity, source_.labels);
  for (std::size_t i = 0; i < oracle.size(); ++i) EXPECT_NEAR(result.scores[i], oracle[i], 0.25);
  EXPECT_LT(wrong_share(result.kept), 0.02);
}

TEST_F(SageSelectorTest, EveryKindOfRandomProjectionFindsWrongLabels) {
  SelectionConfig config = small_config();
  config.sketch.method = "random_projection";
  config.sketch.size = 400;
  const at::Tensor identity = at::eye(65, at::kDouble);
  const std::vector<double> oracle = slow_agreement(source_.matrix(), identity, source_.labels);
  std::vector<std::vector<float>> all;
  for (const char* projection : {"gaussian", "rademacher", "sparse"}) {
    config.sketch.projection = projection;
    const SelectionResult result = select(config);
    for (std::size_t i = 0; i < oracle.size(); ++i) EXPECT_NEAR(result.scores[i], oracle[i], 0.3);
    EXPECT_LT(wrong_share(result.kept), 0.02) << projection;
    all.push_back(result.scores);
  }
  EXPECT_NE(all[0], all[1]);
  EXPECT_NE(all[1], all[2]);
}

TEST_F(SageSelectorTest, SixteenBitsChangeScoresLittle) {
  SelectionConfig config = small_config();
  const SelectionResult plain = select(config);
  const auto farthest_from_plain = [&] {
    const SelectionResult result = select(config);
    EXPECT_GT(overlap(result.kept, plain.kept), 0.9);
    float farthest = 0.0f;
    for (std::size_t i = 0; i < plain.scores.size(); ++i) {
      farthest = std::max(farthest, std::abs(result.scores[i] - plain.scores[i]));
    }
    return farthest;
  };
  config.sketch.projection_precision = "bf16";
  EXPECT_LT(farthest_from_plain(), 0.03f);
  EXPECT_GT(farthest_from_plain(), 0.0f);
  config.sketch.projection_precision = "float32";
  config.cache_precision = "bf16";
  source_.can_cache = false;  // so that S g is what is kept
  config.scores = "cached";
  EXPECT_LT(farthest_from_plain(), 0.03f);
  EXPECT_GT(farthest_from_plain(), 0.0f);
  config.scores = "recomputed";  // nothing is kept, so nothing is rounded
  EXPECT_EQ(farthest_from_plain(), 0.0f);
}

TEST_F(SageSelectorTest, PeersOfTheFilterAreWhatTheyAreCalled) {
  SelectionConfig config = small_config();
  EXPECT_TRUE(select(config).peers.small_loss.empty()) << "keep: top doubts nothing";
  for (const char* scoring : {"agreement", "gradient_norm"}) {
    for (const double drop : {-1.0, 0.2}) {
      config.keep = "filter";
      config.scoring = scoring;
      config.filter.drop = drop;
      const SelectionResult result = select(config);
      ASSERT_EQ(result.peers.small_loss.size(), 600u);
      ASSERT_EQ(result.peers.confident_learning.size(), 600u);
      for (const auto* trust : {&result.peers.small_loss, &result.peers.confident_learning}) {
        EXPECT_GT(*auroc(*trust, source_.wrong), 0.95);
      }
      for (std::int64_t i = 0; i < 600; ++i) {
        const double norm = source_.matrix()[i].to(at::kDouble).norm().item<double>();
        EXPECT_NEAR(result.peers.gradient_norm[static_cast<std::size_t>(i)], -norm, 1e-5 * norm);
      }
    }
  }
}

TEST_F(SageSelectorTest, OneClusterIsTheConsensusAndMoreAreNearer) {
  SelectionConfig config = small_config();
  config.sketch.size = 20;  // exact
  const SelectionResult plain = select(config);
  config.clusters = 3;
  for (const bool per_class : {true, false}) {
    config.per_class = per_class;
    const SelectionResult result = select(config);
    EXPECT_EQ(result.consensus_strength.size(), per_class ? 5u : 1u);
    double mean = 0.0;
    for (const float score : result.scores) mean += score / 600.0;
    double plain_mean = 0.0;
    for (const float score : plain.scores) plain_mean += score / 600.0;
    if (per_class) {
      EXPECT_GT(mean, plain_mean + 0.02) << "some direction of three is nearer than one for all";
    }
    // Kept vectors, features, or nothing: the same directions.
    for (const char* scores : {"cached", "recomputed"}) {
      config.scores = scores;
      source_.can_cache = false;
      EXPECT_EQ(select(config).scores, result.scores);
    }
    config.scores = "auto";
    source_.can_cache = true;
  }
}

TEST_F(SageSelectorTest, DegenerateGradientsComeLastAndAreCounted) {
  source_.matrix()[7].zero_();
  source_.matrix()[20][3] = std::numeric_limits<float>::quiet_NaN();
  source_.matrix()[31][0] = std::numeric_limits<float>::infinity();
  for (const char* scoring : {"agreement", "gradient_norm"}) {
    SelectionConfig config = small_config();
    config.scoring = scoring;
    const SelectionResult result = select(config);
    EXPECT_EQ(result.degenerate, 3);
    EXPECT_EQ(result.non_finite, config.scoring == "agreement" ? 2 : 0);
    for (const std::size_t id : {7u, 20u, 31u}) {
      EXPECT_EQ(result.scores[id], kLowestScore);
      EXPECT_FALSE(std::binary_search(result.kept.begin(), result.kept.end(), static_cast<std::int64_t>(id)));
    }
    EXPECT_FALSE(result.warnings.empty());
    for (float score : result.scores) EXPECT_TRUE(std::isfinite(score));
  }
}

TEST_F(SageSelectorTest, ChoosesAmongTheCandidatesOnly) {
  std::vector<std::int64_t> some;
  for (std::int64_t id = 5; id < 600; id += 3) some.push_back(id);
  const SelectionResult result = select_from(source_, small_config(), *one_, some);
  EXPECT_EQ(result.scores.size(), some.size());
  EXPECT_EQ(static_cast<std::int64_t>(result.kept.size()), subset_size(0.25, static_cast<std::int64_t>(some.size())));
  EXPECT_TRUE(std::includes(some.begin(), some.end(), result.kept.begin(), result.kept.end()));
  EXPECT_EQ(source_.examples_seen, static_cast<std::int64_t>(some.size()));
}

TEST_F(SageSelectorTest, AutoSizeAndCompressionAndOneConsensus) {
  SelectionConfig config = small_config();
  config.sketch.size = 0;
  config.sketch.max_size = 12;  // starts at 12
  EXPECT_EQ(select(config).certificate->size, 12);
  config = small_config();
  config.compression = "gpu";
  EXPECT_NE(select(config).warnings.at(0).find("compression"), std::string::npos);
  config = small_config();
  config.per_class = false;
  config.fraction = 0.01;
  const SelectionResult one = select(config);
  EXPECT_EQ(one.consensus_strength.size(), 1u);
  EXPECT_EQ(one.kept, highest(one.scores, 6));
}

TEST_F(SageSelectorTest, RefusesOptionsThatItDoesNotKnow) {
  const auto expect_refused = [&](auto change) {
    SelectionConfig config = small_config();
    change(config);
    EXPECT_THROW(select(config), ConfigError);
  };
  expect_refused([](SelectionConfig& c) { c.method = "sagee"; });
  expect_refused([](SelectionConfig& c) { c.scoring = "loss"; });
  expect_refused([](SelectionConfig& c) { c.keep = "bottom"; });
  expect_refused([](SelectionConfig& c) { c.filter.by = "luck"; });
  expect_refused([](SelectionConfig& c) { c.filter.count = "all"; });
  expect_refused([](SelectionConfig& c) { c.keep = "coverage", c.coverage = "all"; });
  expect_refused([](SelectionConfig& c) { c.clusters = 0; });
  expect_refused([](SelectionConfig& c) { c.clusters = 2, c.scoring = "gradient_norm"; });
  expect_refused([](SelectionConfig& c) {
    c.keep = "coverage";
    c.coverage = "facility_location";
    c.scoring = "gradient_norm";
  });
  expect_refused([](SelectionConfig& c) { c.cache_precision = "fp8"; });
  expect_refused([](SelectionConfig& c) { c.sketch.projection_precision = "fp8"; });
  expect_refused([](SelectionConfig& c) { c.sketch.projection = "dense"; });
  expect_refused([](SelectionConfig& c) {
    c.sketch.method = "random_projection";
    c.sketch.projection = "sparse";
    c.sketch.density = 2.0;
  });
  expect_refused([](SelectionConfig& c) { c.sketch.alpha = 0.0; });
  expect_refused([](SelectionConfig& c) { c.sketch.method = "svd"; });
  expect_refused([](SelectionConfig& c) { c.sketch.size = 1; });
  expect_refused([](SelectionConfig& c) { c.scores = "never"; });
  expect_refused([](SelectionConfig& c) { c.shards = 3; });
  expect_refused([](SelectionConfig& c) { c.fraction = 0.0; });
  try {
    find_selection_method("sagee");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("sage, random, full"), std::string::npos) << error.what();
  }
}

TEST(RandomSubset, IsBalancedExactAndRepeatable) {
  ClassifierSource source(503, 7, 4, 0.0, 5);
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  SelectionConfig config = small_config();
  config.method = "random";
  const SelectionResult result = select_from(source, config, *one, all_ids(source));
  EXPECT_EQ(result.kept.size(), 126u);
  EXPECT_EQ(result.class_histogram, class_quota(126, count_classes(source.labels, 7)));
  EXPECT_TRUE(std::is_sorted(result.kept.begin(), result.kept.end()));
  EXPECT_EQ(select_from(source, config, *one, all_ids(source)).kept, result.kept);
  EXPECT_NE(select_from(source, config, *one, all_ids(source), 2).kept, result.kept);
  EXPECT_NE(select_from(source, config, *one, all_ids(source), 1, 1).kept, result.kept);
  EXPECT_EQ(source.gradient_calls + source.project_calls, 0);
  config.per_class = false;
  EXPECT_EQ(select_from(source, config, *one, all_ids(source)).kept.size(), 126u);
  config.fraction = 0.004;  // two examples, seven classes
  const SelectionResult two = select_from(source, config, *one, all_ids(source));
  EXPECT_EQ(two.kept.size(), 2u);
  ASSERT_EQ(two.warnings.size(), 1u);
  config.method = "full";
  EXPECT_EQ(select_from(source, config, *one, all_ids(source)).kept, all_ids(source));
}

TEST(RandomSubset, IsUniformWithinAClass) {
  ClassifierSource source(40, 2, 2, 0.0, 6);
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  SelectionConfig config = small_config();
  config.method = "random";
  config.fraction = 0.5;
  std::vector<double> count(40, 0.0);
  const int trials = 4000;
  for (int trial = 0; trial < trials; ++trial) {
    for (std::int64_t id : select_from(source, config, *one, all_ids(source), static_cast<std::uint64_t>(trial)).kept) {
      count[static_cast<std::size_t>(id)] += 1.0;
    }
  }
  const auto sizes = count_classes(source.labels, 2);
  const auto quota = class_quota(20, sizes);
  for (std::size_t i = 0; i < 40; ++i) {
    const auto c = static_cast<std::size_t>(source.labels[i]);
    const double p = static_cast<double>(quota[c]) / static_cast<double>(sizes[c]);
    EXPECT_NEAR(count[i] / trials, p, 5.0 * std::sqrt(p * (1.0 - p) / trials) + 1e-9);
  }
}

}  // namespace
}  // namespace sage
