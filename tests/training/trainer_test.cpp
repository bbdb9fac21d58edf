// The protocols of a run: what a proxy costs, and from which weights training starts after a selection.
#include "training/trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "core/safetensors.h"
#include "models/registry.h"
#include "models/weights.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/resume.h"

namespace sage {
namespace {

using nlohmann::json;

/// One process is one MPI world: it can be started once only.
Runtime& runtime() {
  static Runtime instance;
  return instance;
}

class TrainerTest : public testing::TemporaryFolder {
 protected:
  /// Runs to the end; the last checkpoint.
  TrainingState run(const std::string& name, const std::vector<std::string>& overrides) {
    log::set_quiet(true);
    std::vector<std::string> all = {"model.name=mlp",          "training.batch_size=20", "selection.fraction=0.5",
                                    "selection.sketch.size=8", "training.lr=0.05",       "output.tensorboard=false"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    const auto experiment = testing::synthetic_experiment(100, 4, parse_config("", "test", all));
    Job job(runtime(), experiment->config.device);
    RunFolder folder = RunFolder::open(folder_ / name, OpenMode::fresh);
    Trainer trainer(*experiment, job, &folder);
    trainer.run();
    std::vector<std::string> notes;
    return find_resume_point(folder_ / name).state;
  }
  static bool same(const TrainingState& a, const TrainingState& b) {
    for (std::size_t i = 0; i < a.learner.model.size(); ++i) {
      if (!a.learner.model[i].tensor.equal(b.learner.model[i].tensor)) return false;
    }
    return true;
  }
};

TEST_F(TrainerTest, AProxyIsCountedAndTrainingStartsFromTheSeedsWeights) {
  const std::vector<std::string> proxy = {"training.steps=7", "selection.no_warmup=true", "selection.mode=single",
                                          "selection.scorer=proxy", "selection.proxy.steps=9"};
  auto with = proxy, without = proxy;
  with.emplace_back("training.reinitialize_after_selection=true");
  without.emplace_back("training.reinitialize_after_selection=false");
  const TrainingState a = run("with", with), b = run("without", without);
  // The subset of 50 makes batches of 20, 20 and 10: seven steps see 120 examples.
  EXPECT_EQ(a.position.examples, 120);
  EXPECT_EQ(a.proxy_position.examples, 9 * 20);
  EXPECT_TRUE(same(a, b)) << "before the first epoch the network is fresh already";
}

TEST_F(TrainerTest, WeightsOfASubsetHaveMeanOneAndAreTrainedWith) {
  const TrainingState state = run("weighted", {"selection.method=craig", "selection.warmup_epochs=1",
                                               "training.epochs=2", "selection.fraction=0.2"});
  ASSERT_EQ(state.subset_weights.size(), 20U);
  double sum = 0.0;
  for (const float weight : state.subset_weights) sum += weight;
  EXPECT_NEAR(sum, 20.0, 1e-4);
  EXPECT_NE(state.subset_weights.front(), *std::max_element(state.subset_weights.begin(), state.subset_weights.end()));
}

TEST_F(TrainerTest, ForgettingLooksAtTheTrainingBeforeIt) {
  const TrainingState state = run("forgetting", {"selection.method=forgetting", "selection.warmup_epochs=3",
                                                 "training.epochs=4", "selection.mode=single"});
  EXPECT_EQ(state.subset_ids->size(), 50U);
  const auto epochs = std::find_if(state.memory.begin(), state.memory.end(),
                                   [](const NamedTensor& tensor) { return tensor.name == "forgetting.epochs"; });
  ASSERT_NE(epochs, state.memory.end());
  EXPECT_EQ(epochs->tensor.item<std::int64_t>(), 4);
}

TEST_F(TrainerTest, SeveralProxiesAreAveragedAndCounted) {
  const TrainingState state = run(
      "several", {"selection.method=grand", "selection.early.models=3", "selection.scorer=proxy",
                  "selection.proxy.steps=4", "selection.no_warmup=true", "selection.mode=single", "training.epochs=1"});
  std::map<std::string, at::Tensor> memory;
  for (const NamedTensor& tensor : state.memory) memory[tensor.name] = tensor.tensor;
  EXPECT_EQ(memory.at("difficulty.networks").item<std::int64_t>(), 3);
  EXPECT_EQ(memory.at("difficulty.examples").item<std::int64_t>(), 2 * 4 * 20) << "of those before the last";
  EXPECT_GT(memory.at("difficulty.sums").min().item<double>(), 0.0);
}

TEST_F(TrainerTest, DropoutIsCountedAndEndsOnEverything) {
  for (const char* mode : {"dbpd", "smrd", "srd", "psmrd", "apd", "infobatch"}) {
    const TrainingState state =
        run(mode, {std::string("dropout.mode=") + mode, "selection.mode=none", "training.epochs=5",
                   "dropout.threshold=0.5", "dropout.gamma=0.5", "dropout.anneal=0.2"});
    EXPECT_EQ(state.position.step, 25) << mode << ": the learning rate goes by the whole course";
    const json metrics = json::parse(testing::bytes_of(folder_ / mode / "metrics.json"));
    std::int64_t kept = 0;
    for (const json& epoch : metrics["epochs"]) {
      const json& dropout = epoch["dropout"];
      const bool is_last = epoch["epoch"] == 5;
      EXPECT_EQ(dropout["everything"], is_last) << mode;
      EXPECT_EQ(dropout["offered"], 100);
      if (is_last) {
        EXPECT_EQ(dropout["kept"], 100);
      }
      kept += dropout["kept"].get<std::int64_t>();
      EXPECT_EQ(epoch["effective_epochs"], static_cast<double>(kept) / 100);
      std::int64_t by_class = 0;
      for (const json& count : dropout["kept_of_class"]) by_class += count.get<std::int64_t>();
      if (!is_last) {
        EXPECT_EQ(by_class, dropout["kept"].get<std::int64_t>()) << mode;
      }
      EXPECT_EQ(dropout["difficulty"].size(), std::string(mode) == "apd" ? 4U : 0U);
      EXPECT_EQ(epoch["test"]["class_accuracy"].size(), 4U);
      EXPECT_GT(epoch["test"]["f1_macro"].get<double>(), 0.0);
    }
    EXPECT_EQ(state.position.examples, kept);
    EXPECT_LT(kept, 500) << mode << " left nothing out";
    EXPECT_GT(metrics["summary"]["wall_clock_gain"].get<double>(), 0.0);
    // srd: 20, 10, 5, 2 and all of 20, in five batches each.
    if (std::string(mode) == "srd") {
      EXPECT_EQ(kept, 5 * (20 + 10 + 5 + 2 + 20));
    }
  }
}

TEST_F(TrainerTest, ASubsetIsTrainedOnWithDropout) {
  const TrainingState state = run("subset", {"selection.no_warmup=true", "selection.mode=single", "training.epochs=3",
                                             "dropout.mode=dbpd", "dropout.threshold=0.3", "training.loss=ldam"});
  const json metrics = json::parse(testing::bytes_of(folder_ / "subset" / "metrics.json"));
  EXPECT_EQ(metrics["epochs"][0]["dropout"]["offered"], 50);
  EXPECT_EQ(metrics["epochs"][2]["dropout"]["kept"], 50);
  EXPECT_LT(state.position.examples, 150);
  EXPECT_EQ(state.subset_ids->size(), 50U);
}

/// Phases are those of one process, so what they are parts of is too.
TEST_F(TrainerTest, SharesOfAResumedEpochAreOfTheProcessThatEndedIt) {
  log::set_quiet(true);
  constexpr double waited = 0.3;  // seconds, in the process before
  const std::map<std::string, std::vector<std::string>> runs{
      {"dropout", {"selection.mode=none", "dropout.mode=dbpd", "dropout.threshold=0.5"}},
      {"crest",
       {"selection.method=crest", "selection.crest.train_fraction=1", "selection.crest.random_set=0.4",
        "selection.crest.interval_factor=2"}}};
  for (const auto& [name, overrides] : runs) {
    std::vector<std::string> all = {"model.name=cnn",   "model.width=16",    "training.batch_size=20",
                                    "training.lr=0.05", "training.epochs=3", "output.tensorboard=false"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    const auto experiment = testing::synthetic_experiment(100, 4, parse_config("", "test", all));
    {
      Job job(runtime(), experiment->config.device);
      RunFolder folder = RunFolder::open(folder_ / name, OpenMode::fresh);
      int asked = 0;
      Trainer trainer(*experiment, job, &folder, {}, [&] {
        if (++asked != 8) return 0;  // five steps and the end of an epoch before: the second of five
        std::this_thread::sleep_for(std::chrono::duration<double>(waited));
        return SIGUSR1;
      });
      EXPECT_EQ(trainer.run(), SIGUSR1) << name;
    }
    const TrainingState stopped = find_resume_point(folder_ / name).state;
    EXPECT_EQ(stopped.position.epoch, 1) << name;
    EXPECT_EQ(stopped.position.order_position, 40) << name;
    EXPECT_GE(stopped.seconds, waited) << name;
    {
      Job job(runtime(), experiment->config.device);
      RunFolder folder = RunFolder::open(folder_ / name, OpenMode::resume);
      Trainer trainer(*experiment, job, &folder, find_resume_point(folder_ / name).state);
      EXPECT_EQ(trainer.run(), 0) << name;
    }
    const json epochs = json::parse(testing::bytes_of(folder_ / name / "metrics.json"))["epochs"];
    const double own = epochs[1]["seconds"].get<double>() - stopped.seconds;  // of the second process
    if (name == "crest") {
      double sum = 0.0;
      for (const json& seconds : epochs[1]["crest"]["seconds"]) sum += seconds.get<double>();
      EXPECT_GT(sum, 0.0);
      EXPECT_LE(sum, own + 1e-6);
      continue;
    }
    const json& part = epochs[1]["dropout"];
    EXPECT_GT(part["scoring_seconds"].get<double>(), 0.0);
    EXPECT_GE(part["training_seconds"].get<double>(), part["scoring_seconds"].get<double>());
    EXPECT_LE(part["training_seconds"].get<double>(), own + 1e-6);
    EXPECT_NEAR(part["earlier_seconds"].get<double>(), stopped.seconds, 1e-6);
    EXPECT_EQ(epochs[0]["dropout"]["earlier_seconds"], 0.0);
    EXPECT_EQ(epochs[2]["dropout"]["earlier_seconds"], 0.0);
  }
}

TEST_F(TrainerTest, ReinitializingForgetsTheWarmUp) {
  const std::vector<std::string> random = {"selection.method=random", "selection.mode=single"};
  auto fresh = random, warm = random, never = random;
  fresh.insert(fresh.end(), {"selection.warmup_epochs=1", "training.epochs=2", "training.scheduler=constant",
                             "training.reinitialize_after_selection=true"});
  warm.insert(warm.end(), {"selection.warmup_epochs=1", "training.epochs=2", "training.scheduler=constant"});
  EXPECT_FALSE(same(run("fresh", fresh), run("warm", warm)));
  // With a learning rate that changes nothing, the weights at the end are those of the seed.
  fresh.emplace_back("training.lr=1e-30");
  never.insert(never.end(), {"selection.no_warmup=true", "training.epochs=1", "training.lr=1e-30"});
  EXPECT_TRUE(same(run("kept", fresh), run("never", never)));
}

TEST_F(TrainerTest, TrainingStartsFromPretrainedWeightsAndAResumeDoesNotNeedThem) {
  const auto of_ten = make_model(ModelConfig{.name = "mlp"}, {1, 8, 8}, 10, 77);
  const auto file = folder_ / "weights.safetensors";
  write_safetensors(file, copy_state(*of_ten));
  const std::vector<std::string> settings = {"selection.mode=none", "training.epochs=1", "training.lr=1e-30",
                                             "training.scheduler=constant"};
  auto pretrained = settings;
  pretrained.push_back("model.pretrained=" + file.string());
  const TrainingState fresh = run("fresh", settings), started = run("started", pretrained);
  for (std::size_t i = 0; i < fresh.learner.model.size(); ++i) {
    const NamedTensor& entry = started.learner.model[i];
    const bool is_head = entry.name.starts_with("fc.");  // of 4 classes here: as without the file
    const at::Tensor expected = is_head ? fresh.learner.model[i].tensor : of_ten->named_parameters()[i].tensor.detach();
    EXPECT_TRUE(entry.tensor.equal(expected)) << entry.name;
    EXPECT_EQ(entry.tensor.equal(fresh.learner.model[i].tensor), is_head) << entry.name;
  }

  std::filesystem::remove(file);
  EXPECT_THROW(run("gone", pretrained), CheckpointError);
  auto longer = pretrained;
  longer.insert(longer.end(), {"model.name=mlp", "training.batch_size=20", "training.epochs=2"});
  const auto experiment = testing::synthetic_experiment(100, 4, parse_config("", "test", longer));
  Job job(runtime(), experiment->config.device);
  RunFolder folder = RunFolder::open(folder_ / "started", OpenMode::resume);
  Trainer trainer(*experiment, job, &folder, find_resume_point(folder_ / "started").state);
  EXPECT_EQ(trainer.run(), 0);
  EXPECT_EQ(find_resume_point(folder_ / "started").state.position.epoch, 2);
}

}  // namespace
}  // namespace sage
