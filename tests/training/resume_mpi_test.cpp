// A run that is stopped anywhere and goes on, over and over, equals one that never stopped: bit for bit.
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "data/corruption.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/resume.h"
#include "training/trainer.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::bytes_of;

/// A folder that all ranks know; rank 0 removes it.
class SharedFolder {
 public:
  SharedFolder() {
    std::string pattern = (fs::temp_directory_path() / "sage_resume_XXXXXX").string();
    if (world().rank() == 0 && mkdtemp(pattern.data()) == nullptr) pattern.clear();
    path_ = world().all_gather_strings(pattern).front();
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  ~SharedFolder() {
    if (world().rank() == 0) fs::remove_all(path_);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// How often the ranks were asked whether to stop, and when one of them says yes.
struct Stops {
  std::int64_t asked = 0;
  std::int64_t at = -1;  ///< counted from 1; never where it is below
  bool speaks = true;    ///< of all ranks one asks for the stop
};

class Resume : public ::testing::Test {
 protected:
  std::unique_ptr<Experiment> experiment(const std::vector<std::string>& overrides) const {
    log::set_quiet(true);
    std::vector<std::string> all = {"model.name=cnn",
                                    "model.width=16",
                                    "training.batch_size=24",
                                    "training.epochs=5",
                                    "selection.fraction=0.45",
                                    "selection.warmup_epochs=1",
                                    "selection.sketch.size=8",
                                    "selection.batch_size=2",
                                    "selection.shards=4",
                                    "training.lr=0.05",
                                    "data.augment.crop=1",
                                    "data.augment.flip=true",
                                    "data.augment.erasing=0.3",
                                    "data.augment.randaugment=1",
                                    "data.augment.cutmix.enabled=true",
                                    "data.augment.mixup.enabled=true",
                                    "data.augment.mixup.probability=0.5",
                                    "selection.refresh_epochs=2",
                                    "output.tensorboard=false",
                                    "output.save_interval=2"};
    all.insert(all.end(), overrides.begin(), overrides.end());
    auto made = testing::synthetic_experiment(101, 4, parse_config("", "test", all));
    for (std::int64_t id = 0; id < 11; ++id) made->validation.push_back(made->candidates[static_cast<std::size_t>(id)]);
    made->candidates.erase(made->candidates.begin(), made->candidates.begin() + 11);
    const DataConfig& data = made->config.data;
    if (data.corrupt_labels > 0) {
      made->corrupted =
          corrupt_labels(made->labels, made->candidates, 4, data.corrupt_labels, data.corrupt_kind, made->config.seed);
    }
    return made;
  }

  /// ALL ranks. Goes on in `folder` (or begins) until the end or the stop. Whether it came to the end.
  bool run(const Experiment& what, const fs::path& folder, Stops& stops) {
    Job job(runtime(), what.config.device, what.config.distributed);
    const bool begun = fs::is_directory(folder / "checkpoints");
    job.communicator->barrier();
    std::optional<TrainingState> state;
    if (begun) state = find_resume_point(folder).state;
    std::optional<RunFolder> run_folder;
    if (job.is_lead()) run_folder.emplace(RunFolder::open(folder, begun ? OpenMode::resume : OpenMode::fresh));
    Trainer trainer(what, job, run_folder ? &*run_folder : nullptr, std::move(state), [&] {
      const bool stop = ++stops.asked == stops.at;
      return stop && stops.speaks ? SIGUSR1 : 0;
    });
    const int signal = trainer.run();
    EXPECT_TRUE(signal == 0 || signal == SIGUSR1);
    return signal == 0;
  }

  static void expect_equal(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].name, b[i].name);
      const bool floats = a[i].tensor.is_floating_point();  // NaN stands for what was never seen
      EXPECT_TRUE(floats ? at::allclose(a[i].tensor, b[i].tensor, 0.0, 0.0, /*equal_nan=*/true)
                         : a[i].tensor.equal(b[i].tensor))
          << a[i].name;
    }
  }

  /// JSON but for what is measured: seconds, memory, and how much was sent and by which versions.
  static json without_measures(json value) {
    if (value.is_object()) {
      for (const char* key :
           {"seconds", "phase_seconds", "total_seconds", "selection_seconds", "host_peak_bytes", "device_peak_bytes",
            "phases", "bytes_sent", "versions", "share_of_other_phases", "training_seconds", "scoring_seconds",
            "earlier_seconds", "wall_clock_gain", "cpu_seconds"}) {
        value.erase(key);
      }
    }
    for (auto& item : value) {
      if (item.is_structured()) item = without_measures(item);
    }
    return value;
  }

  /// Rank 0: everything that the two runs left.
  static void expect_equal_folders(const fs::path& a, const fs::path& b) {
    const TrainingState x = find_resume_point(a).state, y = find_resume_point(b).state;
    expect_equal(x.learner.model, y.learner.model);
    expect_equal(x.learner.optimizer, y.learner.optimizer);
    expect_equal(x.dropout, y.dropout);
    EXPECT_EQ(x.subset_ids, y.subset_ids);
    EXPECT_EQ(x.subset_weights, y.subset_weights);
    ASSERT_EQ(x.memory.size(), y.memory.size());
    for (std::size_t i = 0; i < x.memory.size(); ++i) {
      EXPECT_EQ(x.memory[i].name, y.memory[i].name);
      if (x.memory[i].name.ends_with("seconds")) continue;
      EXPECT_TRUE(x.memory[i].tensor.equal(y.memory[i].tensor)) << x.memory[i].name;
    }
    EXPECT_EQ(x.position, y.position);
    EXPECT_EQ(x.proxy_position, y.proxy_position);
    EXPECT_EQ(x.selection_round, y.selection_round);
    ASSERT_EQ(x.crest.has_value(), y.crest.has_value());
    if (x.crest) {
      expect_equal(x.crest->tensors, y.crest->tensors);
      EXPECT_EQ(without_measures(json::parse(x.crest->json)), without_measures(json::parse(y.crest->json)));
    }
    EXPECT_EQ(x.best_accuracy, y.best_accuracy);
    EXPECT_EQ(x.best_epoch, y.best_epoch);
    expect_equal(read_checkpoint(a / "checkpoints" / "best_model.safetensors").learner.model,
                 read_checkpoint(b / "checkpoints" / "best_model.safetensors").learner.model);
    EXPECT_EQ(without_measures(json::parse(bytes_of(a / "metrics.json"))),
              without_measures(json::parse(bytes_of(b / "metrics.json"))));
    std::int64_t subsets = 0;
    for (const auto& entry : fs::directory_iterator(a / "subset_indices")) {
      const fs::path other = b / "subset_indices" / entry.path().filename();
      ++subsets;
      if (entry.path().extension() == ".json") {
        EXPECT_EQ(without_measures(json::parse(bytes_of(entry.path()))),
                  without_measures(json::parse(bytes_of(other))));
      } else {
        EXPECT_EQ(bytes_of(entry.path()), bytes_of(other)) << "scores of all";
      }
    }
    EXPECT_EQ(subsets > 0, x.subset_ids.has_value());
  }

  /// ALL ranks. Stops at 20 random places (with more than two ranks at 6), by the wish of a rank that differs each
  /// time.
  void expect_stops_to_leave_no_trace(const std::vector<std::string>& overrides, std::uint64_t seed) {
    const int count = world().size() <= 2 ? 20 : 6;
    const SharedFolder folder;
    const auto what = experiment(overrides);
    Stops never;
    ASSERT_TRUE(run(*what, folder.path() / "whole", never));
    ASSERT_GT(never.asked, count);
    // Places of the whole run, in their order; each part begins where the last one stopped.
    RandomStream random(seed, "stops");
    std::set<std::int64_t> places;
    while (static_cast<int>(places.size()) < count) {
      places.insert(1 + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(never.asked - 1))));
    }
    std::int64_t done = 0;
    int stopped = 0;
    std::set<std::string> kinds;
    for (const std::int64_t place : places) {
      const bool mine = stopped % world().size() == world().rank();
      Stops stops{.at = place - done, .speaks = mine};
      if (run(*what, folder.path() / "stopped", stops)) break;
      done = place;
      ++stopped;
      const TrainingState state = find_resume_point(folder.path() / "stopped").state;
      kinds.insert(state.selection                                 ? "selection"
                   : state.has_begun_selection()                   ? "proxy"
                   : state.position.order_position > 0             ? "epoch"
                   : state.selection_epoch == state.position.epoch ? "behind a selection"
                                                                   : "between epochs");
    }
    EXPECT_EQ(stopped, count) << "a part that goes on asks no more often than the whole run does";
    Stops last;
    EXPECT_TRUE(run(*what, folder.path() / "stopped", last));
    kinds_.insert(kinds.begin(), kinds.end());
    if (world().rank() == 0) expect_equal_folders(folder.path() / "whole", folder.path() / "stopped");
    world().barrier();
  }

  std::set<std::string> kinds_;
};

TEST_F(Resume, StopsLeaveNoTraceWithAProxy) {
  expect_stops_to_leave_no_trace({"selection.scorer=proxy", "selection.proxy.steps=9", "selection.keep=filter",
                                  "data.corrupt_labels=0.2", "selection.fraction=0.25", "training.weight_decay=0.001"},
                                 1);
  if (world().size() > 2) return;
  for (const char* kind : {"selection", "proxy", "epoch"}) EXPECT_TRUE(kinds_.contains(kind)) << kind;
}

TEST_F(Resume, StopsLeaveNoTraceWithAdamAndANewStart) {
  expect_stops_to_leave_no_trace({"training.optimizer=adam", "training.lr=0.01", "selection.scores=recomputed",
                                  "training.reinitialize_after_selection=true", "training.scheduler=step",
                                  "training.step_size=2", "selection.sketch.method=random_projection"},
                                 2);
}

TEST_F(Resume, StopsLeaveNoTraceWithStatisticsOfEachRank) {
  expect_stops_to_leave_no_trace({"training.sync_batch_norm=false", "selection.method=random", "training.steps=23",
                                  "selection.no_warmup=true", "output.save_minutes=1e-9"},
                                 3);
}

TEST_F(Resume, StopsLeaveNoTraceWithCrest) {
  const std::vector<std::string> crest = {"data.augment.erasing=0",
                                          "data.augment.randaugment=0",
                                          "data.augment.cutmix.enabled=false",
                                          "data.augment.mixup.enabled=false",
                                          "selection.method=crest",
                                          "training.epochs=6",
                                          "training.batch_size=16",
                                          "selection.crest.train_fraction=0.9",
                                          "selection.crest.random_set=0.4",
                                          "selection.crest.interval_factor=2",
                                          "selection.crest.check_threshold=0.05",
                                          "selection.crest.learned_loss=0.6",
                                          "selection.crest.drop_interval=3",
                                          "selection.crest.min_remaining=0.5"};
  expect_stops_to_leave_no_trace(crest, 4);

  // What the whole run has told, on the way.
  const SharedFolder folder;
  const auto what = experiment(crest);
  Stops never;
  ASSERT_TRUE(run(*what, folder.path() / "run", never));
  if (world().rank() == 0) {
    const json metrics = json::parse(bytes_of(folder.path() / "run" / "metrics.json"));
    const json& updates = metrics.at("crest_updates");
    const json& last = metrics.at("epochs").back().at("crest");
    EXPECT_EQ(metrics["epochs"].front()["crest"]["updates"], 0) << "the first short epoch trains on all data";
    EXPECT_EQ(last.at("updates"), updates.size());
    EXPECT_GT(updates.size(), 1U);
    EXPECT_EQ(updates.front().at("step"), 6);
    EXPECT_TRUE(updates.front().at("error").is_null());
    EXPECT_GT(last.at("checks").get<int>(), 0);
    EXPECT_GT(last.at("dropped").get<int>(), 0);
    EXPECT_EQ(last.at("dropped").get<int>() + last.at("remaining").get<int>(), 90);
    EXPECT_GE(last.at("remaining").get<int>(), 45);
    EXPECT_GT(last.at("dropped_accuracy").get<double>(), 0.5);
    EXPECT_EQ(last.at("forwarded_by_checks"), last.at("checks").get<int>() * 36) << "V_r alone";
    for (std::size_t i = 1; i < updates.size(); ++i) {
      EXPECT_GT(updates[i].at("error").get<double>(), 0.05);
      EXPECT_GT(updates[i].at("hessian_norm").get<double>(), 0.0);
      EXPECT_LE(updates[i].at("interval").get<int>(), 6);
      EXPECT_GT(updates[i].at("true_loss_error").get<double>(), 0.0);
    }
    for (const char* phase : {"selection", "approximation", "checking", "training"}) {
      EXPECT_GT(metrics.at("summary").at("crest").at("seconds").at(phase).get<double>(), 0.0) << phase;
    }
    // Of a run with crest there is no way to one without it, nor to one that draws other sets.
    const TrainingState state = find_resume_point(folder.path() / "run").state;
    for (const char* other : {"selection.method=random", "selection.mode=none", "selection.crest.random_set=0.3"}) {
      auto overrides = crest;
      overrides.emplace_back(other);
      EXPECT_THROW(check_same_course(state, "file", experiment(overrides)->config, 16), CheckpointError) << other;
    }
    check_same_course(state, "file", experiment(crest)->config, 16);
  }
  world().barrier();
}

TEST_F(Resume, StopsLeaveNoTraceWithAWeightedSubset) {
  expect_stops_to_leave_no_trace({"selection.method=gradmatch"}, 4);
}

TEST_F(Resume, StopsLeaveNoTraceWithAHistoryOfForgetting) {
  expect_stops_to_leave_no_trace({"data.augment.cutmix.enabled=false", "data.augment.mixup.enabled=false",
                                  "selection.method=forgetting", "training.batch_size=8"},
                                 5);
}

TEST_F(Resume, StopsLeaveNoTraceWithSeveralProxies) {
  expect_stops_to_leave_no_trace({"selection.method=el2n", "selection.early.models=3", "selection.scorer=proxy",
                                  "selection.proxy.steps=5", "training.epochs=4"},
                                 6);
}

TEST_F(Resume, StopsLeaveNoTraceWithTheForgettingOfAProxy) {
  expect_stops_to_leave_no_trace(
      {"data.augment.cutmix.enabled=false", "data.augment.mixup.enabled=false", "selection.method=ccs",
       "selection.ccs.score=forgetting", "selection.scorer=proxy", "selection.proxy.steps=13", "training.epochs=4"},
      7);
}

TEST_F(Resume, StopsLeaveNoTraceWithDropoutOnASubset) {
  expect_stops_to_leave_no_trace(
      {"data.augment.cutmix.enabled=false", "data.augment.mixup.enabled=false", "dropout.mode=apd",
       "dropout.accumulate_kept=true", "dropout.threshold=0.6", "selection.warmup_epochs=2", "selection.mode=single",
       "selection.fraction=0.6", "training.epochs=6", "training.loss=class_balanced_focal"},
      4);
}

TEST_F(Resume, StopsLeaveNoTraceWithPrunedEpochs) {
  expect_stops_to_leave_no_trace(
      {"data.augment.cutmix.enabled=false", "data.augment.mixup.enabled=false", "dropout.mode=infobatch",
       "selection.mode=none", "dropout.anneal=0.2", "training.epochs=7"},
      5);
}

TEST_F(Resume, ACheckpointInTheMiddleOfAnEpochIsAsGoodAsAStop) {
  const SharedFolder folder;
  const auto what = experiment({"output.save_steps=5", "output.keep_checkpoints=100", "selection.mode=none"});
  Stops never;
  ASSERT_TRUE(run(*what, folder.path() / "whole", never));
  // As if the run had been killed right after each of them.
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder.path() / "whole" / "checkpoints")) {
    const auto name = parse_checkpoint_name(entry.path());
    if (name && name->step) files.push_back(entry.path());
  }
  EXPECT_GE(files.size(), 2U);
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    const fs::path other = folder.path() / file.stem();
    if (world().rank() == 0) {
      fs::copy(folder.path() / "whole", other, fs::copy_options::recursive);
      const auto name = *parse_checkpoint_name(file);
      for (const auto& entry : fs::directory_iterator(other / "checkpoints")) {
        const auto its = parse_checkpoint_name(entry.path());
        if (its && *its > name) fs::remove(entry.path());
      }
    }
    world().barrier();
    Stops none;
    EXPECT_TRUE(run(*what, other, none));
    if (world().rank() == 0) expect_equal_folders(folder.path() / "whole", other);
    world().barrier();
  }
}

}  // namespace
}  // namespace sage
