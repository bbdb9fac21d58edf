// Progressive data dropout in whole runs of one rank: what is recorded, and what is refused.
#include "training/dropout/dropout.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/plan.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

std::unique_ptr<Experiment> experiment_of(const std::vector<std::string>& overrides, std::int64_t count = 100) {
  std::vector<std::string> all{"model.name=mlp", "training.batch_size=20"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return testing::synthetic_experiment(count, 4, parse_config("", "test", all));
}

std::string refusal(const std::function<void(Config&)>& change, const std::string& mode = "dbpd") {
  const auto experiment = experiment_of({"dropout.mode=" + mode});
  change(experiment->config);
  return message_of<ConfigError>([&] { check_dropout(*experiment); });
}

TEST(DropoutOptions, WhatIsOutOfRangeIsNamed) {
  const auto expect = [](const std::string& message, const std::string& key) {
    EXPECT_TRUE(contains(message, "dropout." + key) && contains(message, "expected")) << message;
  };
  expect(refusal([](Config& config) { config.dropout.threshold = 1.0; }), "threshold");
  expect(refusal([](Config& config) { config.dropout.threshold = -0.1; }), "threshold");
  expect(refusal([](Config& config) { config.dropout.start_revision = -2; }), "start_revision");
  expect(refusal([](Config& config) { config.dropout.ema_alpha = 0.0; }), "ema_alpha");
  expect(refusal([](Config& config) { config.dropout.ema_alpha = 1.5; }), "ema_alpha");
  expect(refusal([](Config& config) { config.dropout.epsilon = 0.0; }), "epsilon");
  expect(refusal([](Config& config) { config.dropout.gamma = 0.0; }), "gamma");
  expect(refusal([](Config& config) { config.dropout.prune = 1.0; }), "prune");
  expect(refusal([](Config& config) { config.dropout.anneal = 1.1; }), "anneal");
  expect(refusal([](Config& config) { config.dropout.mode = "dpbd"; }), "mode");
  // The file and the command line are held to the same.
  for (const char* wrong : {"dropout.threshold=1", "dropout.ema_alpha=0", "dropout.epsilon=-1", "dropout.mode=dpbd"}) {
    const std::vector<std::string> overrides{wrong};
    EXPECT_TRUE(contains(message_of<ConfigError>([&] { parse_config("", "test", overrides); }),
                         std::string(wrong).substr(0, std::string(wrong).find('='))));
  }
}

TEST(DropoutOptions, WhatDoesNotGoTogetherIsRefused) {
  EXPECT_TRUE(contains(refusal([](Config& config) { config.training.cuda_graph = true; }), "training.cuda_graph"));
  EXPECT_TRUE(contains(refusal([](Config& config) { config.data.augment.mixup.enabled = true; }), "augment.mixup"));
  EXPECT_TRUE(contains(refusal([](Config& config) { config.data.augment.cutmix.enabled = true; }), "augment.cutmix"));
  EXPECT_TRUE(contains(refusal([](Config& config) { config.selection.method = "crest"; }), "selection.method crest"));
  // Without dropout none of it matters here; a plan is refused before a run begins.
  const auto experiment = experiment_of({"dropout.mode=none"});
  experiment->config.data.augment.mixup.enabled = true;
  check_dropout(*experiment);
  experiment->config.dropout.mode = "apd";
  const auto single = make_single_communicator(at::kCPU);
  const auto network = make_network(*experiment, "mlp", 1, *single);
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { make_plan(*experiment, *network, 0, 1); }), "mixup"));
}

TEST(DropoutOptions, ApdNamesAClassWithoutExamples) {
  const auto experiment = experiment_of({"dropout.mode=apd"});
  experiment->dataset.class_names = {"a", "b", "c", "d"};
  check_dropout(*experiment);
  std::erase_if(experiment->candidates,
                [&](std::int64_t id) { return experiment->labels[static_cast<std::size_t>(id)] == 2; });
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { check_dropout(*experiment); }), "class 2 (c) has no example"));
  experiment->config.dropout.mode = "psmrd";
  check_dropout(*experiment);
}

/// On a GPU a step is only queued: scoring waits for that of the step before and does not count it, and a step whose
/// losses are read back is counted whole.
TEST(Dropout, ScoringIsNotChargedWithTrainingThatIsQueued) {
  const auto single = make_single_communicator(at::kCPU);
  for (const char* mode : {"dbpd", "infobatch"}) {
    const auto experiment = experiment_of({std::string("dropout.mode=") + mode, "dropout.threshold=0.5"});
    int waits = 0;
    DeviceMemoryHooks hooks;
    hooks.synchronize = [&] {
      ++waits;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    };
    PhaseTimer timer(hooks);
    Learner learner(*experiment, make_network(*experiment, "mlp", 1, *single), *single, timer);
    ProgressiveDropout dropout(*experiment, *single, timer, 3);
    Loader loader(*experiment->train_images, experiment->labels,
                  EpochPlan(dropout.begin_epoch(experiment->candidates, 0), 20, 0, 1, 1, 0), {}, 0);
    const auto step = [&](std::int64_t epoch) {
      dropout.step(learner, loader, *loader.next(), {.epoch = epoch, .batch = 0, .is_last = false}, 0.05, "test");
    };
    step(0);
    const bool is_read_back = std::string(mode) == "infobatch";
    EXPECT_EQ(waits, is_read_back ? 4 : 2) << mode << ": at both ends of scoring, and of a step that is read back";
    EXPECT_EQ(timer.phases().at("scoring").calls, 1) << mode;
    EXPECT_GE(timer.seconds("scoring"), 0.02) << mode << ": its own end is waited for";
    if (is_read_back) {
      EXPECT_GE(timer.seconds("training"), 0.02) << "the wait for the step is a part of it";
    }
    const int before = waits;
    step(2);
    EXPECT_EQ(waits, before) << mode << ": an ordinary step waits for nothing";
  }
}

TEST(Dropout, AStateOfAnotherModeIsRefused) {
  const auto single = make_single_communicator(at::kCPU);
  PhaseTimer timer;
  const auto one = experiment_of({"dropout.mode=apd"}), other = experiment_of({"dropout.mode=infobatch"});
  ProgressiveDropout adaptive(*one, *single, timer, 3), pruned(*other, *single, timer, 3);
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { pruned.load_state(adaptive.state()); }), "dropout.mode"));
  auto state = adaptive.state();
  state[2].tensor = at::tensor({100}, at::kLong);  // an example that is not there
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { adaptive.load_state(state); }), "examples"));
  state[2].tensor = at::tensor({99}, at::kLong);
  adaptive.load_state(state);
  EXPECT_EQ(adaptive.state()[2].tensor.item<std::int64_t>(), 99);
}

}  // namespace
}  // namespace sage
