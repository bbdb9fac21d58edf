#include "training/checkpoint.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "core/random.h"
#include "core/safetensors.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::contains;
using testing::message_of;
using testing::put_bytes;

TrainingState make_state(std::int64_t epoch) {
  TrainingState state;
  state.model = "cnn";
  state.dataset = "digits";
  state.class_count = 10;
  state.config_json = R"({"seed": 7, "model": {"name": "cnn"}})";
  state.seed = 0xFFFFFFFFFFFFFFFFULL;
  state.global_batch = 128;
  state.epoch = epoch;
  state.step = epoch * 11;
  state.order_position = 64;
  state.examples_seen = epoch * 1400;
  state.selection_round = 2;
  state.best_accuracy = 0.1 + 0.2;
  state.best_epoch = 1;
  state.extra = {{"note", "text with \"quotes\""}};
  const auto value = static_cast<double>(epoch);
  state.model_state = {{"conv.weight", at::full({4, 3}, value / 3.0, at::kFloat)},
                       {"bn.num_batches_tracked", at::full({}, epoch, at::kLong)}};
  state.optimizer_state = {{"step", at::full({1}, epoch * 11, at::kLong)},
                           {"conv.weight.momentum_buffer", at::full({4, 3}, -value, at::kFloat)}};
  state.subset_ids = std::vector<std::int64_t>{1, 5, 9};
  return state;
}

void expect_same(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const NamedTensor& one : a) {
    const auto other =
        std::find_if(b.begin(), b.end(), [&](const NamedTensor& tensor) { return tensor.name == one.name; });
    ASSERT_NE(other, b.end()) << one.name;
    EXPECT_TRUE(at::equal(one.tensor, other->tensor)) << one.name;
  }
}

class Checkpoint : public testing::TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    fs::create_directories(folder_ / "checkpoints");
  }
  fs::path epoch_file(std::int64_t epoch) const { return checkpoint_path(folder_ / "checkpoints", epoch); }
  void write_epochs(std::initializer_list<std::int64_t> epochs) {
    for (const std::int64_t epoch : epochs) write_checkpoint(epoch_file(epoch), make_state(epoch));
  }
};

TEST_F(Checkpoint, EverythingComesBack) {
  const TrainingState state = make_state(3);
  write_checkpoint(epoch_file(3), state);
  EXPECT_EQ(epoch_file(3).filename(), "checkpoint_epoch_3.safetensors");
  const TrainingState back = read_checkpoint(epoch_file(3));
  EXPECT_EQ(back.model, state.model);
  EXPECT_EQ(back.dataset, state.dataset);
  EXPECT_EQ(back.class_count, state.class_count);
  EXPECT_EQ(back.config_json, state.config_json);
  EXPECT_EQ(back.seed, state.seed);
  EXPECT_EQ(back.global_batch, state.global_batch);
  EXPECT_EQ(back.epoch, state.epoch);
  EXPECT_EQ(back.step, state.step);
  EXPECT_EQ(back.order_position, state.order_position);
  EXPECT_EQ(back.examples_seen, state.examples_seen);
  EXPECT_EQ(back.selection_round, state.selection_round);
  EXPECT_EQ(back.best_accuracy, state.best_accuracy) << "to the last bit";
  EXPECT_EQ(back.best_epoch, state.best_epoch);
  EXPECT_EQ(back.extra, state.extra);
  EXPECT_EQ(back.subset_ids, state.subset_ids);
  expect_same(back.model_state, state.model_state);
  expect_same(back.optimizer_state, state.optimizer_state);
}

TEST_F(Checkpoint, NoSubsetAndAnEmptyOneDiffer) {
  TrainingState state = make_state(1);
  state.subset_ids.reset();
  state.best_accuracy.reset();
  write_checkpoint(epoch_file(1), state);
  EXPECT_FALSE(read_checkpoint(epoch_file(1)).subset_ids.has_value());
  EXPECT_FALSE(read_checkpoint(epoch_file(1)).best_accuracy.has_value());
  state.subset_ids.emplace();
  write_checkpoint(epoch_file(1), state);
  EXPECT_EQ(read_checkpoint(epoch_file(1)).subset_ids, std::vector<std::int64_t>{});
}

TEST_F(Checkpoint, FlippedBitsAndTruncationsAreNeverAccepted) {
  TrainingState state = make_state(3);
  state.model_state.push_back({"large", at::zeros({5000}, at::kFloat)});  // so that flips fall into data as well
  write_checkpoint(epoch_file(3), state);
  const std::string whole = bytes_of(epoch_file(3));
  const fs::path path = folder_ / "damaged.safetensors";
  RandomStream random(5, "damage");
  int accepted = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::string damaged = whole;
    if (trial % 4 == 3) {
      damaged.resize(random.below(whole.size()));
    } else {
      // Half of the flips go into the first kilobytes, where the header lies.
      const std::uint64_t bit = random.below(8 * (trial % 2 == 0 ? whole.size() : 2500));
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    }
    put_bytes(path, damaged);
    try {
      read_checkpoint(path);
      ++accepted;
    } catch (const CheckpointError& error) {
      EXPECT_TRUE(contains(error.what(), path.string()));
    }
  }
  EXPECT_EQ(accepted, 0);
}

TEST_F(Checkpoint, OtherFilesAreNamed) {
  const fs::path path = folder_ / "weights.safetensors";
  write_safetensors(path, make_state(1).model_state);
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), "not a checkpoint of sage"));
  for (const char* state : {"", "[]", "{}", R"({"format":2})", R"({"format":1,"complete":true,"model":5})"}) {
    write_safetensors(path, make_state(1).model_state, {{"sage.state", state}, {"sage.config", "{}"}});
    EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), path.string())) << state;
  }
  write_safetensors(path, make_state(1).model_state, {{"sage.state", R"({"format":2})"}, {"sage.config", "{}"}});
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), "format is 2"));
}

TEST_F(Checkpoint, AnotherModelOrDataSetIsNamed) {
  const TrainingState state = make_state(1);
  EXPECT_NO_THROW(check_checkpoint_fits(state, "x", "cnn", "digits", 10));
  const std::string message =
      message_of<CheckpointError>([&] { check_checkpoint_fits(state, "file", "resnet20", "cifar100", 100); });
  for (const char* part : {"file", "model.name is cnn there and resnet20 here",
                           "data.name is digits there and cifar100 here", "classes is 10 there and 100 here"}) {
    EXPECT_TRUE(contains(message, part));
  }
}

TEST_F(Checkpoint, TensorsMustFitExactly) {
  const std::vector<NamedTensor> source{{"a", at::ones({2}, at::kFloat)}, {"b", at::ones({3}, at::kFloat)}};
  const auto destination = [](std::initializer_list<NamedTensor> list) { return std::vector<NamedTensor>(list); };
  const auto good = destination({{"b", at::zeros({3}, at::kFloat)}, {"a", at::zeros({2}, at::kFloat)}});
  load_tensors(good, source, "x");
  EXPECT_TRUE(at::equal(good[1].tensor, source[0].tensor));
  const auto bad =
      destination({{"a", at::zeros({2}, at::kFloat)}, {"b", at::zeros({4}, at::kFloat)}, {"c", at::zeros({1})}});
  const std::string message = message_of<CheckpointError>([&] { load_tensors(bad, source, "the weights"); });
  EXPECT_TRUE(contains(message, "the weights"));
  EXPECT_TRUE(contains(message, "'b' is Float [3] where Float [4] is needed"));
  EXPECT_TRUE(contains(message, "'c' is missing"));
  EXPECT_TRUE(at::equal(bad[0].tensor, at::zeros({2}, at::kFloat))) << "nothing was changed";
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { load_tensors(std::span(good).first(1), source, "x"); }),
                       "'a' is unknown"));
  const auto other = destination({{"a", at::zeros({2}, at::kDouble)}, {"b", at::zeros({3}, at::kFloat)}});
  EXPECT_THROW(load_tensors(other, source, "x"), CheckpointError);
}

TEST_F(Checkpoint, ResumeTakesTheNewestWholeOneAndTellsWhatItPassedOver) {
  write_epochs({2, 9, 10});
  put_bytes(folder_ / "checkpoints" / "checkpoint_epoch_99.safetensors.12.tmp", "left of an interrupted write");
  ResumePoint point = find_resume_point(folder_);
  EXPECT_EQ(point.state.epoch, 10) << "by number, not by name";
  EXPECT_EQ(point.path, epoch_file(10));
  EXPECT_TRUE(point.notes.empty());

  std::string damaged = bytes_of(epoch_file(10));
  damaged[damaged.size() - 3] ^= 1;
  put_bytes(epoch_file(10), damaged);
  point = find_resume_point(folder_);
  EXPECT_EQ(point.state.epoch, 9);
  ASSERT_EQ(point.notes.size(), 1U);
  EXPECT_TRUE(contains(point.notes[0], "checkpoint_epoch_10.safetensors"));
  EXPECT_TRUE(contains(point.notes[0], "checksum"));
  EXPECT_EQ(find_resume_point(folder_ / "checkpoints").state.epoch, 9);

  for (const std::int64_t epoch : {2, 9}) put_bytes(epoch_file(epoch), "short");
  const std::string message = message_of<CheckpointError>([&] { find_resume_point(folder_); });
  for (const char* name : {"epoch_2.", "epoch_9.", "epoch_10."}) EXPECT_TRUE(contains(message, name));
}

TEST_F(Checkpoint, ResumeFromAFileOrByAnotherName) {
  write_epochs({4});
  ResumePoint point = find_resume_point(epoch_file(4));
  EXPECT_EQ(point.state.epoch, 4);
  EXPECT_TRUE(point.notes.empty());
  for (const fs::path& name : {folder_ / "checkpoints" / "checkpoint_epoch_4.pt", folder_ / "checkpoint_epoch_4.pt",
                               folder_ / "checkpoint_epoch_4", folder_ / "checkpoint_epoch_4.safetensors"}) {
    point = find_resume_point(name);
    EXPECT_EQ(point.path, epoch_file(4)) << name;
    ASSERT_EQ(point.notes.size(), 1U);
    EXPECT_TRUE(contains(point.notes[0], name.string() + " does not exist; taking " + epoch_file(4).string()));
  }
  const std::string message = message_of<CheckpointError>([&] { find_resume_point(folder_ / "other.pt"); });
  EXPECT_TRUE(contains(message, "other.pt"));
  EXPECT_TRUE(contains(message, "checkpoints/other.safetensors"));
}

TEST_F(Checkpoint, WeightsAloneAreNotEnoughToResume) {
  const fs::path path = folder_ / "checkpoints" / "best_model.safetensors";
  write_checkpoint(path, make_state(5), CheckpointContent::weights_only);
  const TrainingState back = read_checkpoint(path);
  EXPECT_TRUE(back.optimizer_state.empty());
  expect_same(back.model_state, make_state(5).model_state);
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { find_resume_point(path); }), "weights only"));
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { find_resume_point(folder_); }), "no checkpoint"));
}

TEST_F(Checkpoint, OldOnesAreRemovedButTwo) {
  write_epochs({1, 2, 10, 20});
  write_checkpoint(folder_ / "checkpoints" / "best_model.safetensors", make_state(1), CheckpointContent::weights_only);
  const auto removed = remove_old_checkpoints(folder_ / "checkpoints", 2);
  EXPECT_EQ(removed, (std::vector<fs::path>{epoch_file(2), epoch_file(1)}));
  EXPECT_TRUE(fs::exists(epoch_file(10)) && fs::exists(epoch_file(20)));
  EXPECT_TRUE(fs::exists(folder_ / "checkpoints" / "best_model.safetensors"));
  EXPECT_THROW(remove_old_checkpoints(folder_ / "checkpoints", 1), InternalError);
}

TEST_F(Checkpoint, AFailedWriteLeavesTheOldOne) {
  write_epochs({3});
  const std::string before = bytes_of(epoch_file(3));
  TrainingState larger = make_state(3);
  larger.model_state.push_back({"large", at::zeros({100000}, at::kFloat)});
  {
    const testing::FullDisk full(100000);
    EXPECT_TRUE(
        contains(message_of<EnvironmentError>([&] { write_checkpoint(epoch_file(3), larger); }), "checkpoint_epoch_3"));
  }
  {
    const testing::ReadOnlyFolder forbidden(folder_ / "checkpoints");
    EXPECT_THROW(write_checkpoint(epoch_file(3), larger), EnvironmentError);
  }
  EXPECT_EQ(bytes_of(epoch_file(3)), before);
  EXPECT_EQ(find_resume_point(folder_).state.epoch, 3);
}

}  // namespace
}  // namespace sage
