// P ranks train as one rank does with the same global batch, and select the same subset.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "core/error.h"
#include "models/weights.h"
#include "selection/registry.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "training/evaluation.h"
#include "training/learner.h"
#include "training/model_gradient_source.h"

namespace sage {
namespace {

std::vector<NamedTensor> train(const Experiment& experiment, const std::string& model, Communicator& communicator,
                               std::int64_t steps, at::ScalarType type = at::kFloat, double nudge = 0.0) {
  PhaseTimer timer;
  // The same channel for both: one process has no other to wait for.
  const auto network = make_network(experiment, model, 5, communicator);
  network->to(at::kCPU, type, at::MemoryFormat::ChannelsLast);
  for (const at::Tensor& parameter : network->parameters()) {
    const at::NoGradGuard no_gradients;
    // Signs that follow no order of the weights.
    const at::Tensor signs = at::arange(parameter.numel(), parameter.options()).mul_(2.399963).sin_().sign_();
    if (nudge > 0.0) parameter.detach().mul_(1.0 + nudge * signs.view(parameter.sizes()));
  }
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

/// The largest of the tensors' ||a - b|| / ||b||, the latter taken as at least `floor`.
double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b, double floor = 1e-12) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].tensor.to(at::kDouble), y = b[i].tensor.to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / std::max(floor, y.norm().item<double>()));
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

/// Without batch statistics, which are those of each pass.
TEST(Training, MicroBatchesMakeTheStepOfTheWholeBatch) {
  Config whole;
  whole.training.batch_size = 30;
  Config split = whole;
  const auto one = testing::synthetic_experiment(101, 4, whole);
  const auto expected = train(*one, "mlp", world(), 8, at::kDouble);
  // 9 passes over at most 30 examples: with four ranks some passes are empty on some ranks.
  for (const std::int64_t passes : {2, 3, 9}) {
    split.training.accumulate = passes;
    const auto parts = testing::synthetic_experiment(101, 4, split);
    EXPECT_LT(relative_difference(train(*parts, "mlp", world(), 8, at::kDouble), expected), 1e-12) << passes;
    EXPECT_LT(relative_difference(train(*parts, "mlp", world(), 1), train(*one, "mlp", world(), 1)), 1e-6) << passes;
  }
}

TEST(Training, ClippedGradientsAreTheSameOnAllRanks) {
  Config config;
  config.training.batch_size = 30;
  config.training.clip_norm = 0.1;  // far below the norms that occur
  const auto experiment = testing::synthetic_experiment(101, 4, config);
  const auto together = train(*experiment, "cnn", world(), 10);
  EXPECT_LT(relative_difference(together, train(*experiment, "cnn", *make_single_communicator(at::kCPU), 10)), 1e-4);
  for (const auto& entry : together) {
    const at::Tensor mine = entry.tensor.to(at::kDouble).reshape({1, -1}).contiguous();
    const at::Tensor all = world().all_gather_rows(mine);
    for (int r = 0; r < world().size(); ++r) EXPECT_TRUE(at::equal(all.narrow(0, r, 1), mine)) << entry.name;
  }
}

/// Runs `learner` through `batches` of an epoch, rank `poisoned_rank` with a NaN in its first image of the batches that
/// `poisoned` names. The message of the TrainingError, which is the same on all ranks; empty without one.
std::string run_with_poison(const Experiment& experiment, Learner& learner, int batches, int poisoned_rank,
                            const std::function<bool(int)>& poisoned, std::int64_t* first_id = nullptr) {
  Loader loader(*experiment.train_images, experiment.labels,
                EpochPlan(experiment.candidates, experiment.global_batch, world().rank(), world().size(), 5, 0), {}, 0);
  std::string message;
  try {
    for (int i = 0; i < batches; ++i) {
      auto batch = loader.next();
      if (poisoned(i) && world().rank() == poisoned_rank) batch->images[0].fill_(std::nan(""));
      if (first_id != nullptr) *first_id = batch->ids[0];
      learner.step(*batch, 0.1, fmt::format("step {}", i + 1));
    }
  } catch (const TrainingError& error) {
    message = error.what();
  }
  for (const auto& other : world().all_gather_strings(message)) EXPECT_EQ(other, message);
  return message;
}

TEST(Training, ANonFiniteLossNamesTheStepTheExamplesAndTheLayerOnAllRanks) {
  Config config;
  config.training.batch_size = 16;
  config.training.non_finite = "stop";
  const auto experiment = testing::synthetic_experiment(64, 4, config);
  const int last = world().size() - 1;
  for (const char* model : {"mlp", "resnet20"}) {
    PhaseTimer timer;
    Learner learner(*experiment, make_network(*experiment, model, 5, world()), world(), timer);
    std::int64_t id = 0;
    const std::string message = run_with_poison(
        *experiment, learner, 3, last, [](int i) { return i == 1; }, &id);
    const std::string poisoned = world().all_gather_strings(std::to_string(id)).back();
    for (const std::string& part :
         {std::string("step 2"), fmt::format("ids {} (rank {}).", poisoned, last), fmt::format("on rank {}", last),
          std::string("its input"), std::string(model == std::string("mlp") ? "layer 'fc1'" : "layer 'conv1'")}) {
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
    }
  }
}

TEST(Training, ABadWeightIsNamedByItsLayer) {
  Config config;
  config.training.batch_size = 16;
  config.training.non_finite_limit = 1;
  const auto experiment = testing::synthetic_experiment(64, 4, config);
  PhaseTimer timer;
  const auto network = make_network(*experiment, "resnet20", 5, world());
  Learner learner(*experiment, network, world(), timer);
  for (const auto& parameter : network->named_parameters()) {
    if (parameter.name != "layer2.1.conv1.weight") continue;
    const at::NoGradGuard no_gradients;
    parameter.tensor.detach()[3].fill_(INFINITY);
  }
  const std::string message = run_with_poison(*experiment, learner, 1, 0, [](int) { return false; });
  EXPECT_NE(message.find("layer 'layer2.1.conv1' (as is its weight)"), std::string::npos) << message;
}

TEST(Training, NonFiniteStepsAreSkippedByAllRanksAndLeaveNoTrace) {
  Config config;
  config.training.batch_size = 16;
  config.training.optimizer = "adam";
  config.training.non_finite_limit = 3;
  const auto experiment = testing::synthetic_experiment(160, 4, config);
  const auto run = [&](const std::set<int>& poisoned, int rank, std::string* message = nullptr) {
    PhaseTimer timer;
    const auto network = make_network(*experiment, "cnn", 5, world());
    Learner learner(*experiment, network, world(), timer);
    const std::string said =
        run_with_poison(*experiment, learner, 8, rank, [&](int i) { return poisoned.contains(i); });
    if (message != nullptr) *message = said;
    if (!said.empty()) return std::vector<NamedTensor>{};
    learner.settle();
    EXPECT_EQ(learner.skipped_steps(), static_cast<std::int64_t>(poisoned.size()));
    EXPECT_EQ(learner.optimizer().steps(), 8 - learner.skipped_steps()) << "the bias correction counts updates";
    const EpochTotals totals = learner.take_totals();
    EXPECT_EQ(totals.examples, 16 * (8 - learner.skipped_steps()));
    EXPECT_TRUE(std::isfinite(totals.loss) && totals.accuracy > 0.0);
    for (const auto& entry : copy_state(*network))
      EXPECT_TRUE(entry.tensor.isfinite().all().item<bool>()) << entry.name;
    return copy_state(*network);
  };
  // Which rank brought the NaN makes no difference: all have skipped the same steps.
  EXPECT_EQ(relative_difference(run({1, 2, 5, 6}, 0), run({1, 2, 5, 6}, world().size() - 1)), 0.0);
  std::string message;
  run({1, 2, 5, 6, 7}, 0, &message);
  EXPECT_NE(message.find("step 8: "), std::string::npos) << message;
  EXPECT_NE(message.find("3 steps in a row"), std::string::npos) << message;
}

/// Dropout falls on the same features, stochastic depth on the same blocks of the same examples at any number of ranks.
/// Images of 8 x 8 pixels end in one pixel, where 22 examples make a batch statistic: rounding soon grows, with one
/// process as with more. So the limit is what one process makes of weights that differ in the last bits.
TEST(Training, NoiseIsTheSameAtAnyNumberOfRanks) {
  Config config;
  config.training.batch_size = 22;
  config.training.momentum = 0.0;
  const auto single = make_single_communicator(at::kCPU);
  for (const char* model : {"mobilenet_v2", "efficientnet_b0"}) {
    for (const int steps : {1, 2, 4}) {
      const auto run = [&](Communicator& communicator, std::uint64_t seed, double nudge = 0.0) {
        config.seed = seed;
        const auto experiment = testing::synthetic_experiment(55, 4, config);
        return train(*experiment, model, communicator, steps, at::kDouble, nudge);
      };
      const auto alone = run(*single, 3);
      // Biases whose gradient vanishes (batch statistics follow) hold nothing but rounding.
      const double grown = relative_difference(run(*single, 3, 1e-15), alone, 1e-3);
      const double difference = relative_difference(run(world(), 3), alone, 1e-3);
      EXPECT_LT(difference, std::max(1e-9, 10.0 * grown)) << model << " after " << steps << " steps";
      EXPECT_GT(relative_difference(run(*single, 4), alone, 1e-3), 1e-4)
          << model << ": the seed draws noise alone here";
    }
  }
}

/// A learner that was stopped after any step and made anew from its state goes on bit for bit.
class StoppedLearner : public ::testing::TestWithParam<const char*> {};

TEST_P(StoppedLearner, GoesOnBitForBit) {
  const std::string model = GetParam();
  Config config;
  config.training.batch_size = 16;
  config.training.accumulate = 2;
  config.training.clip_norm = 1.0;
  config.training.bucket_mib = 1;
  const auto experiment = testing::synthetic_experiment(160, 4, config);
  const auto run = [&](int stop_after) {
    PhaseTimer timer;
    auto network = make_network(*experiment, model, 5, world());
    auto learner = std::make_unique<Learner>(*experiment, network, world(), timer);
    Loader loader(*experiment->train_images, experiment->labels,
                  EpochPlan(experiment->candidates, 16, world().rank(), world().size(), 5, 0), {2, true}, 0);
    for (int step = 0; step < 5; ++step) {
      auto batch = loader.next();
      if (step == 2 && world().rank() == 0) batch->images[0].fill_(std::nan(""));
      learner->step(*batch, 0.05, "test");
      if (step != stop_after) continue;
      learner->settle();
      const auto weights = copy_state(*network);
      std::vector<NamedTensor> optimizer;
      for (const auto& entry : learner->optimizer().state()) optimizer.push_back({entry.name, entry.tensor.clone()});
      const auto state = learner->state();
      learner.reset();
      network = make_network(*experiment, model, 6, world());
      learner = std::make_unique<Learner>(*experiment, network, world(), timer);
      load_state(*network, weights);
      learner->optimizer().load_state(optimizer);
      learner->load_state(state);
    }
    learner->settle();
    EXPECT_EQ(learner->skipped_steps(), 1);
    auto all = copy_state(*network);
    const EpochTotals totals = learner->take_totals();
    all.push_back({"totals", at::tensor({totals.loss, totals.accuracy, static_cast<double>(totals.examples)})});
    return all;
  };
  const auto whole = run(-1);
  for (const int stop_after : {0, 2}) {
    const auto resumed = run(stop_after);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      EXPECT_TRUE(at::equal(resumed[i].tensor, whole[i].tensor)) << whole[i].name << ", stopped after " << stop_after;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Training, StoppedLearner, ::testing::Values("resnet20", "mobilenet_v2"),
                         [](const auto& information) { return std::string(information.param); });

/// bf16: the same course as float32 up to its rounding, with batch statistics over all ranks.
TEST(Training, SixteenBitsLearnAsThirtyTwoDo) {
  Config config;
  config.training.batch_size = 32;
  const auto full = testing::synthetic_experiment(128, 4, config);
  config.training.precision = "bf16";
  const auto half = testing::synthetic_experiment(128, 4, config);
  const auto loss_after = [&](const Experiment& experiment, std::int64_t steps) {
    PhaseTimer timer;
    const auto network = make_network(experiment, "resnet20", 5, world());
    Learner learner(experiment, network, world(), timer);
    std::int64_t step = 0;
    for (std::int64_t epoch = 0; step < steps; ++epoch) {
      Loader loader(*experiment.train_images, experiment.labels,
                    EpochPlan(experiment.candidates, 32, world().rank(), world().size(), 5, epoch), {}, 1);
      for (auto batch = loader.next(); batch && step < steps; batch = loader.next(), ++step) {
        learner.step(*batch, 0.02, "test");
        if (step == 0 && steps > 1) learner.take_totals();
      }
    }
    learner.settle();
    for (const auto& parameter : network->named_parameters()) EXPECT_EQ(parameter.tensor.scalar_type(), at::kFloat);
    for (const auto& entry : learner.optimizer().state()) EXPECT_NE(entry.tensor.scalar_type(), at::kBFloat16);
    return evaluate(*network, *experiment.train_images, experiment.labels, experiment.candidates, 64, world(),
                    experiment.config.training.precision)
        .mean;
  };
  const Evaluation start = loss_after(*full, 1), exact = loss_after(*full, 24), rough = loss_after(*half, 24);
  EXPECT_LT(exact.loss, 0.5 * start.loss);
  EXPECT_NEAR(rough.loss, exact.loss, 0.15 * start.loss);
  EXPECT_NE(rough.loss, exact.loss) << "nothing ran in 16 bits";
}

}  // namespace
}  // namespace sage
