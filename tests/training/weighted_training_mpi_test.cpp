// Subsets with weights: what a weight does to a step, at any number of ranks, and in a whole run.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "models/weights.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "training/epoch.h"

namespace sage {
namespace {

double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].tensor.to(at::kDouble), y = b[i].tensor.to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / std::max(1e-12, y.norm().item<double>()));
  }
  return worst;
}

/// Trains on `ids` with `weights` for two epochs.
std::vector<NamedTensor> train(const Experiment& experiment, const std::vector<std::int64_t>& ids,
                               const std::vector<float>& weights, Communicator& communicator, double rate = 0.05) {
  PhaseTimer timer;
  const auto network = make_network(experiment, "mlp", 5, communicator);
  network->to(at::kCPU, at::kDouble, at::MemoryFormat::Contiguous);
  Learner learner(experiment, network, communicator, timer);
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    Loader loader(*experiment.train_images, experiment.labels,
                  EpochPlan(ids, experiment.global_batch, communicator.rank(), communicator.size(), 5, epoch), {}, 0);
    for (Batch& batch : loader) {
      batch.images = batch.images.to(at::kDouble);
      if (!weights.empty()) set_weights(batch, ids, weights);
      learner.step(batch, rate, "test");
    }
  }
  return copy_state(*network);
}

class WeightedTraining : public ::testing::Test {
 protected:
  WeightedTraining() {
    Config config;
    config.training.batch_size = 12;
    config.training.momentum = 0.0;
    config.training.weight_decay = 0.0;
    experiment_ = testing::synthetic_experiment(61, 4, config);
    for (std::int64_t id = 0; id < 61; id += 2) {
      ids_.push_back(id);
      weights_.push_back(0.25F + static_cast<float>(id % 7) / 3.0F);
    }
  }
  std::unique_ptr<Experiment> experiment_;
  std::vector<std::int64_t> ids_;
  std::vector<float> weights_;
  std::unique_ptr<Communicator> single_ = make_single_communicator(at::kCPU);
};

TEST_F(WeightedTraining, RanksTrainAsOneRankDoes) {
  const auto together = train(*experiment_, ids_, weights_, world());
  const auto alone = train(*experiment_, ids_, weights_, *single_);
  EXPECT_LT(relative_difference(together, alone), 1e-10) << "at " << world().size() << " ranks";
  EXPECT_GT(relative_difference(train(*experiment_, ids_, {}, world()), alone), 1e-4) << "weights must matter";
}

TEST_F(WeightedTraining, EqualWeightsOfOneChangeNothing) {
  const std::vector<float> ones(ids_.size(), 1.0F);
  EXPECT_LT(relative_difference(train(*experiment_, ids_, ones, world()), train(*experiment_, ids_, {}, world())),
            1e-12);
}

TEST_F(WeightedTraining, AWeightOfTwoIsAnExampleTwice) {
  experiment_->global_batch = 4;  // one step an epoch over all
  const std::vector<std::int64_t> three{4, 9, 30};
  const auto weighted = train(*experiment_, three, {2.0F, 1.0F, 1.0F}, world(), 0.04);
  const auto repeated = train(*experiment_, {4, 4, 9, 30}, {}, world(), 0.04 * 4.0 / 3.0);  // a mean over four
  EXPECT_LT(relative_difference(weighted, repeated), 1e-10);
}

TEST_F(WeightedTraining, MicroBatchesTakeTheirOwnWeights) {
  const auto whole = train(*experiment_, ids_, weights_, world());
  experiment_->config.training.accumulate = 3;
  EXPECT_LT(relative_difference(train(*experiment_, ids_, weights_, world()), whole), 1e-10);
}

TEST_F(WeightedTraining, PredictionsAreThoseOfThisRanksPart) {
  experiment_->config.training.accumulate = 2;
  PhaseTimer timer;
  const auto network = make_network(*experiment_, "mlp", 5, world());
  Learner learner(*experiment_, network, world(), timer);
  learner.watch_predictions();
  Loader loader(*experiment_->train_images, experiment_->labels,
                EpochPlan(ids_, 12, world().rank(), world().size(), 5, 0), {}, 0);
  auto batch = loader.next();
  at::Tensor expected;
  {
    const at::NoGradGuard no_gradients;
    expected = network->forward(batch->images).argmax(1).eq(batch->labels);
  }
  learner.step(*batch, 0.1, "test");
  EXPECT_TRUE(learner.last_right().equal(expected));
}

}  // namespace
}  // namespace sage
