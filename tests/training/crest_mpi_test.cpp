// crest at any number of ranks: the same coresets, and the same weights up to rounding.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "models/weights.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "training/crest/crest.h"
#include "training/evaluation.h"
#include "training/selection_schedule.h"

namespace sage {
namespace {

/// Passes on to crest and keeps what it gives.
class Spy : public BatchSource {
 public:
  explicit Spy(Crest& crest) : crest_(crest) {}
  Batch next(const TrainingPosition& position) override {
    const Batch batch = crest_.next(position);
    if (seen.empty() || seen.back() != crest_.coresets()) seen.push_back(crest_.coresets());
    weight_sum += batch.weights.sum().item<double>();
    examples += static_cast<std::int64_t>(batch.ids.size());
    return batch;
  }
  void stepped(const TrainingPosition& position) override { crest_.stepped(position); }

  std::vector<std::vector<Coreset>> seen;
  double weight_sum = 0.0;    // of this rank
  std::int64_t examples = 0;  // of this rank

 private:
  Crest& crest_;
};

struct Outcome {
  std::vector<std::vector<Coreset>> coresets;
  std::vector<NamedTensor> weights;
  std::vector<std::int64_t> excluded;
  CrestEpoch epoch;
};

std::unique_ptr<Experiment> experiment(const std::vector<std::string>& overrides) {
  log::set_quiet(true);
  std::vector<std::string> all = {"selection.method=crest",
                                  "model.name=cnn",
                                  "model.width=8",
                                  "training.batch_size=14",
                                  "training.lr=0.02",
                                  "data.augment.crop=1",
                                  "data.augment.flip=true",
                                  "selection.batch_size=16",
                                  "selection.crest.random_set=0.16",
                                  "selection.crest.train_fraction=0.2",
                                  "selection.crest.check_threshold=1e-9",   // selects at each check
                                  "selection.crest.interval_factor=0.001",  // and checks before each step
                                  "selection.crest.learned_loss=1.35",
                                  "selection.crest.drop_interval=2"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return testing::synthetic_experiment(201, 4, parse_config("", "test", all));
}

/// A short epoch on all data and one of crest, with a selection at each of its three steps.
Outcome run(const Experiment& what, Job& job) {
  const auto network = make_network(what, what.config.model.name, what.config.seed, *job.statistics);
  Learner learner(what, network, *job.communicator, job.timer);
  std::vector<CrestUpdate> updates;
  Crest crest(what, job, learner, [&](const CrestUpdate& update) { updates.push_back(update); });
  Spy spy(crest);
  const std::vector<std::int64_t> steps(2, plan_crest(what).steps_per_epoch);
  const LearningRateSchedule schedule(what.config.training, steps);
  TrainingPosition position;
  CrestEpoch epoch;
  for (; position.epoch < 2; ++position.epoch) {
    position.order_position = 0;
    train_epoch(what, job,
                {.learner = learner,
                 .schedule = schedule,
                 .timer = job.timer,
                 .ids = what.candidates,
                 .seed = what.config.seed,
                 .steps = steps[0],
                 .title = "test",
                 .source = position.epoch > 0 ? &spy : nullptr},
                position);
    epoch = crest.end_epoch(position, 1.0, true);
  }
  if (job.is_lead()) {
    EXPECT_EQ(static_cast<std::int64_t>(updates.size()), epoch.updates);
  }
  at::Tensor sums = at::tensor({spy.weight_sum, static_cast<double>(spy.examples)}, at::kDouble);
  job.communicator->all_reduce_sum(sums);
  EXPECT_EQ(sums[1].item<double>(), 3 * 14.0);
  if (what.config.selection.crest.compat == "paper") {  // as released, examples change coresets behind it
    EXPECT_NEAR(sums[0].item<double>(), 3 * 14.0, 1e-4) << "mean weight 1";
  }
  return {spy.seen, copy_state(*network), crest.remaining().excluded(), epoch};
}

/// The same in a world of this process alone.
Outcome run_alone(const Experiment& what) {
  Job job(runtime(), what.config.device);
  job.communicator = make_single_communicator(at::kCPU);
  job.statistics = make_single_communicator(at::kCPU);
  return run(what, job);
}

Outcome run_together(const Experiment& what) {
  Job job(runtime(), what.config.device);
  return run(what, job);
}

double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].tensor.to(at::kDouble), y = b[i].tensor.to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / std::max(1e-12, y.norm().item<double>()));
  }
  return worst;
}

TEST(CrestOnRanks, ChooseTheSameCoresetsAsOneRank) {
  for (const char* hessian : {"double_backward", "forward_over_reverse"}) {
    for (const char* compat : {"paper", "release"}) {
      const auto what = experiment(
          {fmt::format("selection.crest.hessian={}", hessian), fmt::format("selection.crest.compat={}", compat)});
      const Outcome alone = run_alone(*what), together = run_together(*what);
      ASSERT_EQ(alone.coresets.size(), 3U);
      EXPECT_TRUE(alone.coresets == together.coresets) << compat;
      EXPECT_LT(relative_difference(together.weights, alone.weights), 1e-3);
      EXPECT_EQ(together.excluded, alone.excluded);
      EXPECT_GT(alone.excluded.size(), 0U);
      EXPECT_EQ(together.epoch.checks, 2);
      EXPECT_NEAR(*together.epoch.hessian_norm, *alone.epoch.hessian_norm, 1e-3 * *alone.epoch.hessian_norm);
      EXPECT_NEAR(*together.epoch.error, *alone.epoch.error, 1e-3);
      // The checks look at V_r alone: 32 of the 201 examples (as released: at all of them).
      EXPECT_EQ(together.epoch.forwarded_by_checks, compat == std::string("paper") ? 2 * 32 : 2 * 201);
      EXPECT_EQ(together.epoch.forwarded_by_selection, alone.epoch.forwarded_by_selection);
    }
  }
}

/// Where the weights stay, the model and the loss that it is checked on are one number: no sampling error between them.
TEST(CrestOnRanks, TheCheckHasNoErrorWhereNothingMoves) {
  const auto what = experiment({"model.name=mlp", "training.lr=1e-30", "training.weight_decay=0",
                                "selection.crest.drop_learned=false", "selection.crest.check_threshold=1e-6"});
  const Outcome outcome = run_together(*what);
  EXPECT_EQ(outcome.epoch.updates, 1);
  EXPECT_EQ(outcome.epoch.checks, 2);
  EXPECT_LT(*outcome.epoch.error, 1e-6);
}

TEST(CrestOnRanks, ARepeatIsBitEqual) {
  const auto what = experiment({"selection.crest.greedy=stochastic"});
  const Outcome first = run_together(*what), second = run_together(*what);
  EXPECT_TRUE(first.coresets == second.coresets);
  EXPECT_EQ(relative_difference(first.weights, second.weights), 0.0);
}

/// A tenth of the steps of 20 epochs, on real images.
TEST(RealDigits, CrestLearnsWithinItsBudget) {
  log::set_quiet(true);
  const Config config =
      parse_config("", "test",
                   std::vector<std::string>{"data.name=digits", "model.name=cnn", "model.width=8",
                                            "selection.method=crest", "training.batch_size=32", "training.lr=0.05",
                                            "selection.crest.random_set=0.05", "selection.crest.check_threshold=0.2"});
  Job job(runtime(), config.device);
  const auto what = prepare_experiment(config, job.device, *job.communicator);
  const auto network = make_network(*what, "cnn", 1, *job.statistics);
  Learner learner(*what, network, *job.communicator, job.timer);
  Crest crest(*what, job, learner, [](const CrestUpdate&) {});
  const std::vector<std::int64_t> steps(20, plan_crest(*what).steps_per_epoch);
  const LearningRateSchedule schedule(config.training, steps);
  TrainingPosition position;
  for (; position.epoch < 20; ++position.epoch) {
    position.order_position = 0;
    train_epoch(*what, job,
                {.learner = learner,
                 .schedule = schedule,
                 .timer = job.timer,
                 .ids = what->candidates,
                 .steps = steps[0],
                 .title = "test",
                 .source = position.epoch > 0 ? &crest : nullptr},
                position);
  }
  std::vector<std::int64_t> ids(static_cast<std::size_t>(what->dataset.test.size()));
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  const Evaluation mean =
      evaluate(*network, *what->test_images, what->dataset.test.labels, ids, 64, *job.communicator, "float32").mean;
  EXPECT_EQ(position.step, 20 * 5);  // 143 of 1437 examples make 5 batches
  EXPECT_GT(mean.accuracy, 0.9);
  const CrestEpoch epoch = crest.end_epoch(position, 1.0, false);
  EXPECT_GT(epoch.updates, 1);
  EXPECT_LT(epoch.updates, epoch.checks + 1) << "the model has held at some checks";
}

/// Weights that are not finite end in the same error on all ranks, none of which waits for another.
TEST(CrestOnRanks, AnErrorIsThatOfAllRanks) {
  const auto what = experiment({});
  Job job(runtime(), what->config.device);
  const auto network = make_network(*what, "cnn", 3, *job.statistics);
  Learner learner(*what, network, *job.communicator, job.timer);
  Crest crest(*what, job, learner, [](const CrestUpdate&) {});
  {
    const at::NoGradGuard no_gradients;
    network->head().weight().detach().fill_(INFINITY);
  }
  std::string message;
  try {
    crest.next({.epoch = 1, .step = 3});
  } catch (const TrainingError& error) {
    message = error.what();
  }
  EXPECT_NE(message.find("is not finite: lower training.lr"), std::string::npos) << message;
  for (const auto& other : job.communicator->all_gather_strings(message)) EXPECT_EQ(other, message);
}

}  // namespace
}  // namespace sage
