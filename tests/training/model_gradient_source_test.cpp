// What is kept between the passes equals what would be computed again, however the passes cut their batches.
#include "training/model_gradient_source.h"

#include <gtest/gtest.h>

#include <numeric>

#include "selection/registry.h"
#include "support/synthetic_experiment.h"

namespace sage {
namespace {

class Source : public ::testing::Test {
 protected:
  void SetUp() override {
    experiment_ = testing::synthetic_experiment(150, 4, {});
    single_ = make_single_communicator(at::kCPU);
    network_ = make_network(*experiment_, "cnn", 3, *single_);
    network_->eval();
  }
  ModelGradientSource source() const {
    return {*network_, *experiment_->train_images, experiment_->labels, config_, 0.1};
  }
  SelectionConfig config_;
  std::unique_ptr<Experiment> experiment_;
  std::unique_ptr<Communicator> single_;
  std::shared_ptr<Classifier> network_;
};

TEST_F(Source, KeptFactorsAreFoundByExampleNotByBatch) {
  ModelGradientSource kept = source(), fresh = source();
  kept.set_caching(true);
  const at::TensorOptions floats(at::kFloat);
  std::vector<std::int64_t> ids(100);
  std::iota(ids.begin(), ids.end(), std::int64_t{7});
  at::Tensor rows = at::empty({100, kept.dimension()}, floats);
  std::int64_t done = 0;
  for (const std::int64_t count : {13, 40, 1, 46}) {  // as a sketch buffer may cut
    kept.gradients(std::span(ids).subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(count)),
                   rows.narrow(0, done, count), {});
    done += count;
  }
  const at::Tensor sketch = rows.narrow(0, 3, 5).clone();
  for (const auto& [first, count] : std::vector<std::pair<std::size_t, std::size_t>>{{0, 100}, {12, 30}, {53, 2}}) {
    const auto some = std::span(ids).subspan(first, count);
    const auto n = static_cast<std::int64_t>(count);
    at::Tensor kept_norms = at::empty({n}, floats), norms = at::empty({n}, floats);
    at::Tensor kept_probabilities = at::empty({n, 4}, floats), probabilities = at::empty({n, 4}, floats);
    const at::Tensor from_kept = kept.project(some, sketch, kept_norms, kept_probabilities);
    const at::Tensor computed = fresh.project(some, sketch, norms, probabilities);
    EXPECT_LT((from_kept - computed).abs().max().item<double>(), 1e-5 * computed.abs().max().item<double>());
    EXPECT_LT((kept_norms - norms).abs().max().item<double>(), 1e-5 * norms.max().item<double>());
    EXPECT_LT((kept_probabilities - probabilities).abs().max().item<double>(), 1e-6);
    const at::Tensor expected = rows.narrow(0, static_cast<std::int64_t>(first), n).mm(sketch.t());
    EXPECT_LT((from_kept - expected).abs().max().item<double>(), 1e-4 * expected.abs().max().item<double>());
  }
}

TEST_F(Source, FeaturesAreKeptInHalfTheSpace) {
  config_.sketch.size = 16;
  config_.batch_size = 64;
  config_.fraction = 0.3;
  config_.scores = "cached";
  std::vector<std::vector<float>> scores;
  std::vector<std::int64_t> bytes;
  for (const char* precision : {"float32", "bf16"}) {
    config_.cache_precision = precision;
    ModelGradientSource from = source();
    bytes.push_back(from.cacheable_bytes_per_example());
    scores.push_back(select_examples({.config = config_,
                                      .seed = 1,
                                      .round = 1,
                                      .ids = experiment_->candidates,
                                      .labels = experiment_->labels,
                                      .class_count = 4,
                                      .source = &from,
                                      .communicator = *single_})
                         .scores);
  }
  const std::int64_t features = network_->feature_count();
  EXPECT_EQ(bytes, (std::vector<std::int64_t>{4 * features + 32, 2 * features + 32}));
  double largest = 0.0;
  for (std::size_t i = 0; i < scores[0].size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(scores[0][i] - scores[1][i])));
  }
  EXPECT_LT(largest, 0.02);
  EXPECT_GT(largest, 0.0);
}

TEST_F(Source, CachedAndRecomputedSelectionsAgree) {
  config_.sketch.size = 16;
  config_.batch_size = 64;
  config_.fraction = 0.3;
  std::vector<std::vector<float>> scores;
  for (const char* how : {"cached", "recomputed"}) {
    config_.scores = how;
    ModelGradientSource from = source();
    const SelectionResult result = select_examples({.config = config_,
                                                    .seed = 1,
                                                    .round = 1,
                                                    .ids = experiment_->candidates,
                                                    .labels = experiment_->labels,
                                                    .class_count = 4,
                                                    .source = &from,
                                                    .communicator = *single_});
    EXPECT_EQ(result.scores_kept, how);
    scores.push_back(result.scores);
  }
  for (std::size_t i = 0; i < scores[0].size(); ++i) EXPECT_NEAR(scores[0][i], scores[1][i], 1e-5);
}

TEST_F(Source, AStoppedSelectionGoesOnToTheLastBit) {
  config_.sketch.size = 16;
  config_.batch_size = 20;  // more than a sketch of this size can always take at once
  config_.fraction = 0.3;
  for (const char* scope : {"classifier", "full"}) {
    SCOPED_TRACE(scope);
    config_.gradient.scope = {scope};
    std::int64_t questions = 0;
    const auto select = [&](std::int64_t stop_at, const SelectionState* state) {
      ModelGradientSource from = source();
      questions = 0;
      return select_examples({.config = config_,
                              .seed = 1,
                              .round = 1,
                              .ids = experiment_->candidates,
                              .labels = experiment_->labels,
                              .class_count = 4,
                              .source = &from,
                              .communicator = *single_,
                              .stop_requested = [&] { return questions++ == stop_at; },
                              .resume_from = state});
    };
    const SelectionResult whole = select(-1, nullptr);
    const std::int64_t count = questions;
    ASSERT_GE(count, 4);
    for (std::int64_t stop_at = 0; stop_at < count; ++stop_at) {
      SelectionState state;
      try {
        select(stop_at, nullptr);
        FAIL() << "it was not stopped";
      } catch (const SelectionStopped& stopped) {
        state = stopped.state();
      }
      const SelectionResult resumed = select(-1, &state);
      EXPECT_EQ(resumed.scores, whole.scores) << "stopped at question " << stop_at;
      EXPECT_EQ(resumed.kept, whole.kept);
    }
  }
}

}  // namespace
}  // namespace sage
