#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/error.h"
#include "selection/sage_selector.h"
#include "selection_cases.h"
#include "support/mpi.h"

namespace sage {
namespace {

using testing::all_ids;
using testing::bytes_of;
using testing::ClassifierSource;
using testing::overlap;
using testing::select_from;
using testing::small_config;
using testing::Variant;

std::string whole_answer(const SelectionResult& result) {
  std::string bytes = bytes_of(result);
  const SelectionSeconds& s = result.seconds;
  for (const double value : {s.sketch, s.merge, s.score, s.choose, static_cast<double>(result.bytes_sent)}) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

const Variant kVariants[] = {
    {"top", [](SelectionConfig&) {}},
    {"filter", [](SelectionConfig& c) { c.keep = "filter"; }},
    {"filter, recomputed",
     [](SelectionConfig& c) {
       c.keep = "filter";
       c.scores = "recomputed";
     }},
    {"fixed cut",
     [](SelectionConfig& c) {
       c.keep = "filter";
       c.filter.drop = 0.3;
     }},
    {"exact covariance", [](SelectionConfig& c) { c.sketch.size = 20; }},
    {"random projection, filter",
     [](SelectionConfig& c) {
       c.sketch.method = "random_projection";
       c.keep = "filter";
     }},
    {"gradient norm", [](SelectionConfig& c) { c.scoring = "gradient_norm"; }},
    {"gradient norm, filter",
     [](SelectionConfig& c) {
       c.scoring = "gradient_norm";
       c.keep = "filter";
     }},
    {"one consensus", [](SelectionConfig& c) { c.per_class = false; }},
    {"one shard", [](SelectionConfig& c) { c.shards = 1; }},
    {"two shards", [](SelectionConfig& c) { c.shards = 2; }},
    {"small fraction", [](SelectionConfig& c) { c.fraction = 0.01; }},
    {"auto size",
     [](SelectionConfig& c) {
       c.sketch.size = 0;
       c.sketch.max_size = 10;
     }},
    {"alpha", [](SelectionConfig& c) { c.sketch.alpha = 0.4; }},
    {"signs, filter",
     [](SelectionConfig& c) {
       c.sketch.method = "random_projection";
       c.sketch.projection = "rademacher";
       c.keep = "filter";
     }},
    {"sparse signs",
     [](SelectionConfig& c) {
       c.sketch.method = "random_projection";
       c.sketch.projection = "sparse";
     }},
    {"clusters, coverage by strata",
     [](SelectionConfig& c) {
       c.clusters = 3;
       c.keep = "coverage";
     }},
    {"clusters in one group, recomputed",
     [](SelectionConfig& c) {
       c.clusters = 4;
       c.per_class = false;
       c.scores = "recomputed";
     }},
    {"facility location",
     [](SelectionConfig& c) {
       c.keep = "coverage";
       c.coverage = "facility_location";
     }},
    {"farthest first, recomputed",
     [](SelectionConfig& c) {
       c.keep = "coverage";
       c.coverage = "farthest_first";
       c.scores = "recomputed";
     }},
    {"random", [](SelectionConfig& c) { c.method = "random"; }},
    {"full", [](SelectionConfig& c) { c.method = "full"; }},
};

TEST(SageSelectorOnRanks, TheNumberOfRanksDoesNotMatter) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  for (const Variant& variant : kVariants) {
    SCOPED_TRACE(variant.name);
    ClassifierSource source(1001, 5, 12, 0.2, 3);
    source.matrix()[17].zero_();
    source.matrix()[900][1] = NAN;
    SelectionConfig config = small_config();
    variant.change(config);
    const SelectionResult alone = select_from(source, config, *one, all_ids(source));
    source.examples_seen = 0;
    const SelectionResult together = select_from(source, config, world(), all_ids(source));
    at::Tensor sketched = at::full({1}, static_cast<double>(source.examples_seen), at::kDouble);
    world().all_reduce_sum(sketched);
    const bool in_pass_1 = together.certificate && together.certificate->sketch != "random projection";
    EXPECT_EQ(sketched.item<double>(), in_pass_1 ? 1001 : 0) << "ranks share the work: every gradient is sketched once";

    const std::vector<std::string> answers = world().all_gather_strings(whole_answer(together));
    for (const std::string& answer : answers) EXPECT_TRUE(answer == answers[0]) << "ranks answered differently";

    EXPECT_EQ(together.kept.size(), alone.kept.size());
    // A greedy cover goes on from each pick: one near-tie that rounding turns over moves some of those behind it.
    const bool is_greedy = config.keep == "coverage" && config.coverage != "stratified";
    EXPECT_GE(overlap(together.kept, alone.kept), is_greedy ? 0.98 : 0.995);
    EXPECT_GE(overlap(together.doubtful, alone.doubtful),
              alone.doubtful.empty() && together.doubtful.empty() ? 0.0 : 0.995);
    EXPECT_EQ(together.estimated_noise, alone.estimated_noise);
    EXPECT_EQ(together.peers.small_loss, alone.peers.small_loss);
    EXPECT_EQ(together.peers.gradient_norm, alone.peers.gradient_norm);
    ASSERT_EQ(together.peers.confident_learning.size(), alone.peers.confident_learning.size());
    for (std::size_t i = 0; i < alone.peers.confident_learning.size(); ++i) {
      EXPECT_NEAR(together.peers.confident_learning[i], alone.peers.confident_learning[i], 1e-6) << i;
    }
    EXPECT_EQ(together.degenerate, alone.degenerate);
    EXPECT_EQ(together.class_histogram, alone.class_histogram);
    EXPECT_EQ(together.scores.size(), alone.scores.size());
    for (std::size_t i = 0; i < together.scores.size(); ++i)
      EXPECT_NEAR(together.scores[i], alone.scores[i], 1e-4) << i;

    const SelectionResult again = select_from(source, config, world(), all_ids(source));
    EXPECT_TRUE(bytes_of(again) == bytes_of(together)) << "a repeat must choose exactly the same";
  }
}

TEST(SageSelectorOnRanks, FewerExamplesThanRanks) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  ClassifierSource source(3, 2, 40, 0.0, 8);  // D = 82
  SelectionConfig config = small_config();
  config.fraction = 0.5;
  for (const std::int64_t shards : {0, 1, 8}) {
    config.shards = shards;
    const SelectionResult together = select_from(source, config, world(), all_ids(source));
    EXPECT_EQ(together.kept.size(), 2u);
    EXPECT_EQ(together.kept, select_from(source, config, *one, all_ids(source)).kept);
  }
}

TEST(SageSelectorOnRanks, SendsNoMoreThanSketchesConsensusAndScores) {
  ClassifierSource source(1001, 5, 12, 0.2, 3);
  const SelectionConfig config = small_config();
  const SelectionResult result = select_from(source, config, world(), all_ids(source));
  const std::int64_t ranks = world().size(), rows = 7, dimension = 65;
  // Per rank: at most 3 sketches of rows, log2(P) Gram blocks and rotations, C x rows sums, N scores, small change.
  // Never anything of N x D or N x N.
  const std::int64_t bound =
      ranks * (8 * rows * dimension * 4 + 8 * rows * rows * 8 * 4 + 5 * rows * 8 + 1001 * 4 * ranks + 4096);
  EXPECT_LE(result.bytes_sent, bound);
  if (ranks > 1) {
    EXPECT_GT(result.bytes_sent, 1001 * 4);
  }
}

}  // namespace
}  // namespace sage
