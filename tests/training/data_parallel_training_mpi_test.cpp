// P ranks train as one rank does with the same global batch, and select the same subset.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "models/weights.h"
#include "selection/registry.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "training/learner.h"
#include "training/model_gradient_source.h"

namespace sage {
namespace {

std::vector<NamedTensor> train(const Experiment& experiment, const std::string& model, Communicator& communicator,
                               std::int64_t steps, at::ScalarType type = at::kFloat) {
  PhaseTimer timer;
  // The same channel for both: one process has no other to wait for.
  const auto network = make_network(experiment, model, 5, communicator);
  network->to(at::kCPU, type, at::MemoryFormat::ChannelsLast);
  Learner learner(experiment, network, communicator, timer);
  std::int64_t step = 0;
  for (std::int64_t epoch = 0; step < steps; ++epoch) {
    Loader loader(
        *experiment.train_images, experiment.labels,
        EpochPlan(experiment.candidates, experiment.global_batch, communicator.rank(), communicator.size(), 5, epoch),
        {2, true}, 1);
    for (auto batch = loader.next(); batch && step < steps; batch = loader.next(), ++step) {
      batch->images = batch->images.to(type);
      learner.step(*batch, 0.05, "test");
    }
  }
  return copy_state(*network);
}

double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].tensor.to(at::kDouble), y = b[i].tensor.to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / std::max(1e-12, y.norm().item<double>()));
  }
  return worst;
}

TEST(Training, RanksTrainAsOneRankDoes) {
  Config config;
  config.training.batch_size = 30;
  // 101 examples in batches of 30: the last batch holds 11, and every rank's share differs.
  const auto experiment = testing::synthetic_experiment(101, 4, config);
  const auto single = make_single_communicator(at::kCPU);
  for (const char* model : {"cnn", "mlp"}) {
    const auto alone = train(*experiment, model, *single, 20);
    const auto together = train(*experiment, model, world(), 20);
    EXPECT_LT(relative_difference(together, alone), 1e-4) << model << " at " << world().size() << " ranks";
  }
  // A deep network amplifies rounding at the kink of its ReLUs: on this data, weights that differ by 1e-7 at the start
  // differ by 1e-3 after ten steps of one process too. So it is compared in float64, where no such chance is left.
  const auto alone = train(*experiment, "resnet20", *single, 20, at::kDouble);
  const auto together = train(*experiment, "resnet20", world(), 20, at::kDouble);
  EXPECT_LT(relative_difference(together, alone), 1e-8) << "resnet20 at " << world().size() << " ranks";
}

TEST(Training, ABatchSmallerThanTheRanksTrainsToo) {
  Config config;
  config.training.batch_size = 6;
  const auto experiment = testing::synthetic_experiment(13, 3, config);  // the last batch of an epoch holds one example
  const auto single = make_single_communicator(at::kCPU);
  EXPECT_LT(relative_difference(train(*experiment, "cnn", world(), 9), train(*experiment, "cnn", *single, 9)), 1e-4);
}

TEST(Training, ARepeatIsBitEqual) {
  Config config;
  config.training.batch_size = 32;
  const auto experiment = testing::synthetic_experiment(96, 4, config);
  EXPECT_EQ(relative_difference(train(*experiment, "cnn", world(), 6), train(*experiment, "cnn", world(), 6)), 0.0);
}

TEST(Training, ANonFiniteLossNamesTheStepAndTheExamplesOnAllRanks) {
  Config config;
  config.training.batch_size = 16;
  const auto experiment = testing::synthetic_experiment(32, 4, config);
  PhaseTimer timer;
  Learner learner(*experiment, make_network(*experiment, "mlp", 5, world()), world(), timer);
  Loader loader(*experiment->train_images, experiment->labels,
                EpochPlan(experiment->candidates, 16, world().rank(), world().size(), 5, 0), {}, 0);
  auto batch = loader.next();
  ASSERT_TRUE(batch);
  const bool poisoned = world().rank() == world().size() - 1;
  if (poisoned) batch->images[0].fill_(std::nan(""));
  std::string message;
  try {
    learner.step(*batch, 0.1, "epoch 1/2, step 1");
    ADD_FAILURE() << "the step was taken";
  } catch (const TrainingError& error) {
    message = error.what();
  } catch (const PeerFailed& failed) {
    EXPECT_EQ(failed.status(), static_cast<int>(ExitStatus::training));
    EXPECT_NE(world().rank(), 0);
  }
  const auto messages = world().all_gather_strings(message);
  const std::string id = world().all_gather_strings(std::to_string(batch->ids[0])).back();
  EXPECT_NE(messages[0].find("epoch 1/2, step 1"), std::string::npos) << messages[0];
  EXPECT_NE(messages[0].find("ids " + id), std::string::npos) << messages[0];
}

TEST(Training, ANonFiniteStepCanBeSkippedByAllRanks) {
  Config config;
  config.training.batch_size = 16;
  config.training.non_finite = "skip";
  const auto experiment = testing::synthetic_experiment(32, 4, config);
  PhaseTimer timer;
  const auto network = make_network(*experiment, "mlp", 5, world());
  Learner learner(*experiment, network, world(), timer);
  const auto before = copy_state(*network);
  Loader loader(*experiment->train_images, experiment->labels,
                EpochPlan(experiment->candidates, 16, world().rank(), world().size(), 5, 0), {}, 0);
  auto batch = loader.next();
  ASSERT_TRUE(batch);
  if (world().rank() == 0) batch->images[0].fill_(std::nan(""));
  EXPECT_FALSE(learner.step(*batch, 0.1, "test"));
  EXPECT_EQ(relative_difference(copy_state(*network), before), 0.0);
  EXPECT_TRUE(learner.step(*loader.next(), 0.1, "test"));
  EXPECT_GT(relative_difference(copy_state(*network), before), 0.0);
  EXPECT_EQ(learner.skipped_steps(), 1);
}

}  // namespace
}  // namespace sage
