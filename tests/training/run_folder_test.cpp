#include "training/run_folder.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::bytes_of;
using testing::contains;
using testing::message_of;
using testing::put_bytes;

class RunFolderTest : public testing::TemporaryFolder {
 protected:
  fs::path run() const { return folder_ / "runs" / "first"; }
};

TEST_F(RunFolderTest, AFreshOneExplainsItself) {
  const RunFolder folder = RunFolder::open(run(), OpenMode::fresh);
  EXPECT_TRUE(fs::is_directory(folder.checkpoints()));
  EXPECT_TRUE(fs::is_directory(folder.subsets()));
  const std::string readme = bytes_of(run() / "README.txt");
  for (const char* name :
       {"config.yaml", "config.json", "metrics.json", "metrics.csv", "training.log", "checkpoint_epoch_N", "best_model",
        "epoch_N_indices.json", "epoch_N_scores.csv", "tensorboard"}) {
    EXPECT_TRUE(contains(readme, name));
  }
  EXPECT_EQ(folder.log_file(), run() / "training.log");
  EXPECT_EQ(folder.validation_events(), run() / "tensorboard" / "validation");
}

TEST_F(RunFolderTest, AFilledFolderNeedsAWord) {
  RunFolder::open(run(), OpenMode::fresh);
  const std::string message = message_of<ConfigError>([&] { RunFolder::open(run(), OpenMode::fresh); });
  EXPECT_TRUE(contains(message, run().string()));
  EXPECT_TRUE(contains(message, "--resume"));
  EXPECT_TRUE(contains(message, "--overwrite"));
  EXPECT_NO_THROW(RunFolder::open(run(), OpenMode::resume));
  EXPECT_NO_THROW(RunFolder::open(folder_ / "new", OpenMode::overwrite));
  fs::create_directories(folder_ / "empty");
  EXPECT_NO_THROW(RunFolder::open(folder_ / "empty", OpenMode::fresh));
  put_bytes(folder_ / "file", "");
  EXPECT_TRUE(
      contains(message_of<ConfigError>([&] { RunFolder::open(folder_ / "file", OpenMode::resume); }), "not a folder"));
}

TEST_F(RunFolderTest, OverwritingRemovesWhatARunMakesAndNothingElse) {
  RunFolder::open(run(), OpenMode::fresh);
  fs::create_directories(run() / "tensorboard" / "train");
  fs::create_directories(run() / "checkpoints" / "best_model.safetensors.d");
  const char* made[] = {"config.yaml",
                        "config.json",
                        "metrics.json",
                        "metrics.csv",
                        "training.log",
                        "metrics.json.4242.tmp",
                        "checkpoints/checkpoint_epoch_10.safetensors",
                        "checkpoints/checkpoint_epoch_10.safetensors.77.tmp",
                        "checkpoints/checkpoint_epoch_11.safetensors.abandoned",
                        "checkpoints/checkpoint_epoch_11_step_240.safetensors.abandoned",
                        "subset_indices/epoch_11_indices.json.abandoned",
                        "subset_indices/epoch_11_scores.csv.abandoned",
                        "checkpoints/best_model.safetensors",
                        "subset_indices/epoch_3_indices.json",
                        "subset_indices/epoch_3_scores.csv",
                        "tensorboard/train/events.out.tfevents.1.host.2.0"};
  const char* foreign[] = {"notes.txt",
                           "config.yaml.bak",
                           "checkpoints/checkpoint_epoch_x.safetensors",
                           "checkpoints/mine.safetensors",
                           "checkpoints/mine.safetensors.abandoned",
                           "subset_indices/epoch_3_indices.json.old",
                           "tensorboard/train/notes",
                           "checkpoints/best_model.safetensors.d/inside"};
  for (const char* name : made) put_bytes(run() / name, "old");
  for (const char* name : foreign) put_bytes(run() / name, "precious");
  RunFolder::open(run(), OpenMode::overwrite);
  for (const char* name : made) EXPECT_FALSE(fs::exists(run() / name)) << name;
  for (const char* name : foreign) EXPECT_EQ(bytes_of(run() / name), "precious") << name;
  EXPECT_TRUE(fs::exists(run() / "README.txt"));
}

TEST_F(RunFolderTest, OverwritingRefusesAnyOtherFolder) {
  const fs::path other = folder_ / "thesis";
  fs::create_directories(other / "checkpoints");
  const char* names[] = {"config.yaml", "metrics.csv", "checkpoints/best_model.safetensors"};
  for (const char* name : names) put_bytes(other / name, "precious");
  for (const char* readme : {"", "My thesis\n"}) {
    if (*readme) put_bytes(other / "README.txt", readme);
    const std::string message = message_of<ConfigError>([&] { RunFolder::open(other, OpenMode::overwrite); });
    EXPECT_TRUE(contains(message, "does not look like a run folder"));
    for (const char* name : names) EXPECT_EQ(bytes_of(other / name), "precious") << name;
  }
}

TEST_F(RunFolderTest, AFolderThatCannotBeWrittenIsOneClearError) {
  fs::create_directories(folder_ / "locked");
  const testing::ReadOnlyFolder forbidden(folder_ / "locked");
  for (const fs::path& path : {folder_ / "locked", folder_ / "locked" / "run"}) {
    const std::string message = message_of<EnvironmentError>([&] { RunFolder::open(path, OpenMode::fresh); });
    EXPECT_TRUE(contains(message, "locked"));
    EXPECT_TRUE(contains(message, "Permission denied"));
  }
}

TEST_F(RunFolderTest, TheConfigurationIsWrittenWithWhereItRan) {
  const RunFolder folder = RunFolder::open(run(), OpenMode::fresh);
  RunInfo info;
  info.versions = {{"libtorch", "2.11.0"}};
  info.hosts = {"a", "b"};
  info.devices = {"cpu", "cpu"};
  info.command_line = "sage train x.yaml";
  info.start_time = now_text();
  folder.write_config("seed: 3\n", R"({"seed": 3, "model": {"name": "cnn"}})", info);
  EXPECT_EQ(bytes_of(run() / "config.yaml"), "seed: 3\n");
  const json all = json::parse(bytes_of(run() / "config.json"));
  EXPECT_EQ(all["config"]["model"]["name"], "cnn");
  EXPECT_EQ(all["run"]["ranks"], 2);
  EXPECT_EQ(all["run"]["hosts"], json({"a", "b"}));
  EXPECT_EQ(all["run"]["versions"]["libtorch"], "2.11.0");
  EXPECT_EQ(all["run"]["command_line"], "sage train x.yaml");
  EXPECT_EQ(all["run"]["git_revision"], git_revision());
  EXPECT_FALSE(git_revision().empty());
  EXPECT_EQ(info.start_time.size(), std::string("2026-01-31T12:00:00+0100").size());
  EXPECT_THROW(folder.write_config("", "{", info), InternalError);
}

SubsetRecord subset() {
  SubsetRecord record;
  record.epoch = 10;
  record.round = 1;
  record.method = "sage";
  record.scoring = "agreement";
  record.keep = "top";
  record.fraction = 0.5;
  record.candidates = 4;
  record.ids = {2, 7};
  record.class_histogram = {1, 1};
  record.class_names = {"cat", "dog"};
  record.sketch_rows = 64;
  record.certificate = 0.5;
  record.relative_certificate = 0.001;
  record.seconds = 1.25;
  record.phase_seconds = {{"sketch", 1.0}};
  record.noise_rate = 0.1;
  record.doubtful_ids = {5};
  record.doubtful = Detection{1.0, 0.5, 0.75};
  record.peers = {{"small_loss", {0.0, 0.0, std::nullopt}}};
  record.notes = {"something to know"};
  return record;
}

ScoreTable scores() {
  return {{7, 5, 2, 3}, {1, 0, 0, 1}, {0.5F, -0.25F, 0.75F, std::numeric_limits<float>::quiet_NaN()}};
}

TEST_F(RunFolderTest, ASubsetIsWrittenWithItsScores) {
  const RunFolder folder = RunFolder::open(run(), OpenMode::fresh);
  const ScoreTable table = scores();
  folder.write_subset(subset(), &table);
  const fs::path path = folder.subsets() / "epoch_10_indices.json";
  const json all = json::parse(bytes_of(path));
  EXPECT_EQ(all["ids"], json({2, 7}));
  EXPECT_EQ(all["kept"], 2);
  EXPECT_EQ(all["scores"], json({0.75, 0.5})) << "in the order of ids";
  EXPECT_FALSE(all.contains("weights")) << "all are 1";
  EXPECT_EQ(all["class_histogram"], json({1, 1}));
  EXPECT_EQ(all["certificate"], 0.5);
  EXPECT_TRUE(all["overlap"].is_null());
  EXPECT_EQ(all["noise_rate"], 0.1);
  EXPECT_EQ(all["doubtful_ids"], json({5}));
  EXPECT_EQ(all["doubtful_precision"], 1.0);
  EXPECT_EQ(all["doubtful_recall"], 0.5);
  EXPECT_EQ(all["doubtful_auroc"], 0.75);
  EXPECT_EQ(all["peers"]["small_loss"]["recall"], 0.0);
  EXPECT_TRUE(all["peers"]["small_loss"]["auroc"].is_null());
  EXPECT_EQ(all["phase_seconds"]["sketch"], 1.0);
  EXPECT_EQ(bytes_of(folder.subsets() / "epoch_10_scores.csv"),
            "example_id,label,score,kept\n7,1,0.5,1\n5,0,-0.25,0\n2,0,0.75,1\n3,1,nan,0\n");
  EXPECT_EQ(read_subset_ids(path), (std::vector<std::int64_t>{2, 7}));
  for (const char* wrong :
       {"{}", "{\"ids\":[1e300]}", "{\"ids\":[-1]}", "{\"ids\":[2,2]}", "{\"ids\":[[[[[[[[[[", "[1]"}) {
    put_bytes(path, wrong);
    EXPECT_TRUE(contains(message_of<DataError>([&] { read_subset_ids(path); }), "epoch_10_indices.json")) << wrong;
  }

  const SelectionSummary summary = summarize(subset());
  EXPECT_EQ(summary.kept, 2);
  EXPECT_EQ(summary.epoch, 10);
  EXPECT_EQ(summary.noise_rate, 0.1);
}

TEST_F(RunFolderTest, WeightsAreWrittenInTheOrderOfIds) {
  const RunFolder folder = RunFolder::open(run(), OpenMode::fresh);
  SubsetRecord record = subset();
  record.weights = {0.5F, 1.5F};
  folder.write_subset(record);
  EXPECT_EQ(json::parse(bytes_of(folder.subsets() / "epoch_10_indices.json"))["weights"], json({0.5, 1.5}));
  record.weights.pop_back();
  EXPECT_THROW(folder.write_subset(record), InternalError);
}

TEST_F(RunFolderTest, ASubsetThatContradictsItselfIsNotWritten) {
  const RunFolder folder = RunFolder::open(run(), OpenMode::fresh);
  SubsetRecord record = subset();
  record.ids = {7, 2};
  EXPECT_THROW(folder.write_subset(record), InternalError);
  record.ids = {2, 2};
  EXPECT_THROW(folder.write_subset(record), InternalError);
  record.ids = {2, 9};
  ScoreTable table = scores();
  EXPECT_THROW(folder.write_subset(record, &table), InternalError);
  table.labels.pop_back();
  EXPECT_THROW(folder.write_subset(subset(), &table), InternalError);
  EXPECT_TRUE(fs::is_empty(folder.subsets()));
}

TEST(SubsetOverlap, ShareKeptBefore) {
  using Ids = std::vector<std::int64_t>;
  EXPECT_DOUBLE_EQ(subset_overlap(Ids{1, 2, 3, 4}, Ids{2, 4, 6}), 0.5);
  EXPECT_DOUBLE_EQ(subset_overlap(Ids{1}, Ids{}), 0.0);
  EXPECT_DOUBLE_EQ(subset_overlap(Ids{}, Ids{1}), 0.0);
}

}  // namespace
}  // namespace sage
