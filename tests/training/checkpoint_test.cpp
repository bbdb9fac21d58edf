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
#include "training/checkpoint_writer.h"
#include "training/resume.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::contains;
using testing::message_of;
using testing::put_bytes;

/// A network in training, with the state of two ranks; its values tell `value`.
LearnerState make_learner(double value) {
  LearnerState learner;
  learner.model = {{"conv.weight", at::full({4, 3}, value / 3.0, at::kFloat)},
                   {"bn.num_batches_tracked", at::full({}, value, at::kLong)}};
  learner.optimizer = {{"step", at::full({1}, value, at::kLong)},
                       {"conv.weight.momentum_buffer", at::full({4, 3}, -value, at::kFloat)}};
  for (const double rank : {0.0, 1.0}) {
    learner.ranks.push_back({{{"totals.loss_and_correct", at::full({2}, value + rank, at::kDouble)}},
                             {{"bn.running_mean", at::full({3}, rank - value, at::kFloat)}}});
  }
  return learner;
}

/// In the middle of the selection before epoch `epoch` + 1.
TrainingState make_state(std::int64_t epoch) {
  TrainingState state;
  state.model = "cnn";
  state.dataset = "digits";
  state.class_count = 10;
  state.config_json = R"({"seed": 7, "model": {"name": "cnn"}})";
  state.seed = 0xFFFFFFFFFFFFFFFFULL;
  state.global_batch = 128;
  state.position = {.epoch = epoch, .step = epoch * 11, .order_position = 0, .examples = epoch * 1400};
  state.selection_round = 2;
  state.selection_epoch = epoch - 1;
  state.seconds = 0.1 + 0.2;
  state.selection_seconds = 1e-3;
  state.best_accuracy = 0.1 + 0.2;
  state.best_epoch = 1;
  state.proxy_position = {.epoch = 1, .step = 5, .order_position = 64, .examples = 700};
  state.proxy_seconds = 2.5;
  state.learner = make_learner(static_cast<double>(epoch));
  state.proxy = make_learner(1000.0 + static_cast<double>(epoch));
  state.selection = SelectionState{R"({"begun": "with \"quotes\""})", {{"shard.3", at::full({5, 7}, 0.5, at::kFloat)}}};
  state.subset_ids = std::vector<std::int64_t>{1, 5, 9};
  state.subset_weights = {0.5F, 2.25F, 0.25F};
  state.memory = {{"forgetting.counts", at::full({4}, 3, at::kInt)}};
  return state;
}

/// Between two epochs.
TrainingState make_state_between(std::int64_t epoch) {
  TrainingState state = make_state(epoch);
  state.selection.reset();
  state.proxy.reset();
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

void expect_same(const LearnerState& a, const LearnerState& b) {
  expect_same(a.model, b.model);
  expect_same(a.optimizer, b.optimizer);
  ASSERT_EQ(a.ranks.size(), b.ranks.size());
  for (std::size_t rank = 0; rank < a.ranks.size(); ++rank) {
    expect_same(a.ranks[rank].learner, b.ranks[rank].learner);
    expect_same(a.ranks[rank].buffers, b.ranks[rank].buffers);
  }
}

void expect_same(const TrainingState& a, const TrainingState& b) {
  EXPECT_EQ(a.model, b.model);
  EXPECT_EQ(a.dataset, b.dataset);
  EXPECT_EQ(a.class_count, b.class_count);
  EXPECT_EQ(a.config_json, b.config_json);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.global_batch, b.global_batch);
  EXPECT_EQ(a.position, b.position);
  EXPECT_EQ(a.selection_round, b.selection_round);
  EXPECT_EQ(a.selection_epoch, b.selection_epoch);
  EXPECT_EQ(a.seconds, b.seconds) << "to the last bit";
  EXPECT_EQ(a.selection_seconds, b.selection_seconds);
  EXPECT_EQ(a.best_accuracy, b.best_accuracy) << "to the last bit";
  EXPECT_EQ(a.best_epoch, b.best_epoch);
  EXPECT_EQ(a.proxy_position, b.proxy_position);
  EXPECT_EQ(a.proxy_seconds, b.proxy_seconds);
  EXPECT_EQ(a.subset_ids, b.subset_ids);
  EXPECT_EQ(a.subset_weights, b.subset_weights);
  expect_same(a.memory, b.memory);
  expect_same(a.learner, b.learner);
  ASSERT_EQ(a.proxy.has_value(), b.proxy.has_value());
  if (a.proxy) expect_same(*a.proxy, *b.proxy);
  ASSERT_EQ(a.selection.has_value(), b.selection.has_value());
  if (a.selection) {
    EXPECT_EQ(a.selection->json, b.selection->json);
    expect_same(a.selection->tensors, b.selection->tensors);
  }
}

class Checkpoint : public testing::TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    fs::create_directories(folder_ / "checkpoints");
  }
  fs::path epoch_file(std::int64_t epoch) const { return checkpoint_path(folder_ / "checkpoints", {epoch, {}}); }
  void write_epochs(std::initializer_list<std::int64_t> epochs) {
    for (const std::int64_t epoch : epochs) write_checkpoint(epoch_file(epoch), make_state_between(epoch));
  }
};

TEST_F(Checkpoint, EverythingComesBack) {
  const TrainingState state = make_state(3);
  write_checkpoint(epoch_file(3), state);
  EXPECT_EQ(epoch_file(3).filename(), "checkpoint_epoch_3.safetensors");
  expect_same(read_checkpoint(epoch_file(3)), state);
  write_checkpoint(epoch_file(3), make_state_between(3));
  expect_same(read_checkpoint(epoch_file(3)), make_state_between(3));
}

TEST_F(Checkpoint, NamesSayWhereARunStood) {
  const fs::path folder = "x";
  const auto name_of = [&](const TrainingState& state) {
    return checkpoint_path(folder, checkpoint_name(state)).filename().string();
  };
  TrainingState state = make_state(3);
  EXPECT_EQ(name_of(make_state_between(3)), "checkpoint_epoch_3.safetensors");
  EXPECT_EQ(name_of(state), "checkpoint_epoch_3_step_38.safetensors") << "33 and the proxy's 5";
  state = make_state_between(3);
  state.selection_epoch = 3;
  EXPECT_EQ(name_of(state), "checkpoint_epoch_3_step_38.safetensors") << "the selection is done, the epoch not begun";
  state.selection_epoch = -1;
  state.position.order_position = 128;
  EXPECT_EQ(name_of(state), "checkpoint_epoch_3_step_38.safetensors");
  for (const char* other :
       {"checkpoint_epoch_.safetensors", "checkpoint_epoch_1_step_.safetensors", "best_model.safetensors",
        "checkpoint_epoch_3.safetensors.1.tmp", "checkpoint_epoch_3.safetensors.abandoned"}) {
    EXPECT_FALSE(parse_checkpoint_name(other)) << other;
  }
  const CheckpointName end{3, {}}, early{3, 40}, late{3, 100};
  EXPECT_TRUE(end < early && early < late && late < (CheckpointName{4, {}})) << "by number, not as text";
  EXPECT_EQ(parse_checkpoint_name(checkpoint_path(folder, late)), late);
}

TEST_F(Checkpoint, NoSubsetAndAnEmptyOneDiffer) {
  TrainingState state = make_state(1);
  state.subset_ids.reset();
  state.subset_weights.clear();
  state.best_accuracy.reset();
  write_checkpoint(epoch_file(1), state);
  EXPECT_FALSE(read_checkpoint(epoch_file(1)).subset_ids.has_value());
  EXPECT_FALSE(read_checkpoint(epoch_file(1)).best_accuracy.has_value());
  state.subset_ids.emplace();
  write_checkpoint(epoch_file(1), state);
  EXPECT_EQ(read_checkpoint(epoch_file(1)).subset_ids, std::vector<std::int64_t>{});
}

TEST_F(Checkpoint, WeightsWithoutTheirExamplesAreRefused) {
  TrainingState state = make_state(1);
  state.subset_weights.pop_back();
  write_checkpoint(epoch_file(1), state);
  EXPECT_TRUE(
      contains(message_of<CheckpointError>([&] { read_checkpoint(epoch_file(1)); }), "2 weights for 3 examples"));
}

TEST_F(Checkpoint, FlippedBitsAndTruncationsAreNeverAcceptedAndTheLastGoodOneIsTaken) {
  write_checkpoint(epoch_file(2), make_state_between(2));
  TrainingState state = make_state(3);
  state.learner.model.push_back({"large", at::zeros({5000}, at::kFloat)});  // so that flips fall into data as well
  write_checkpoint(epoch_file(3), state);
  const std::string whole = bytes_of(epoch_file(3));
  RandomStream random(5, "damage");
  for (int trial = 0; trial < 1000; ++trial) {
    std::string damaged = whole;
    if (trial % 4 == 3) {
      damaged.resize(random.below(whole.size()));
    } else {
      // Half of the flips go into the first kilobytes, where the header lies.
      const std::uint64_t bit = random.below(8 * (trial % 2 == 0 ? whole.size() : 6000));
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    }
    put_bytes(epoch_file(3), damaged);
    const ResumePoint point = find_resume_point(folder_);
    ASSERT_EQ(point.path, epoch_file(2)) << "trial " << trial;
    ASSERT_EQ(point.notes.size(), 1U);
    ASSERT_TRUE(contains(point.notes[0], epoch_file(3).string()));
    expect_same(point.state, make_state_between(2));
    ASSERT_FALSE(HasFailure()) << "trial " << trial;
  }
  put_bytes(epoch_file(3), whole);
  expect_same(find_resume_point(folder_).state, state);
}

TEST_F(Checkpoint, OtherFilesAreNamed) {
  const fs::path path = folder_ / "weights.safetensors";
  write_safetensors(path, make_state(1).learner.model);
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), "not a checkpoint of sage"));
  for (const char* state : {"", "[]", "{}", R"({"format":1})", R"({"format":2,"complete":true,"model":5})"}) {
    write_safetensors(path, make_state(1).learner.model, {{"sage.state", state}, {"sage.config", "{}"}});
    EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), path.string())) << state;
  }
  write_safetensors(path, make_state(1).learner.model, {{"sage.state", R"({"format":1})"}, {"sage.config", "{}"}});
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), "format is 1"));
  // Good checksums around a tensor that stands for nothing.
  TrainingState state = make_state(1);
  state.proxy->ranks.front().learner.front().name = "x";
  write_checkpoint(path, state);
  TensorFile file = read_safetensors(path);
  for (const char* name : {"training/learner/1", "training/learner/-1/x", "training/learner/9999999999/x", "training/x",
                           "training/model/x", "training/proxy/x", "training/buffers//x"}) {
    file.tensors.back().name = name;
    write_safetensors(path, file.tensors, file.metadata);
    EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_checkpoint(path); }), name));
  }
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

TEST_F(Checkpoint, OnlyExamplesOfTheRunAreTakenOn) {
  const std::vector<std::int64_t> candidates{0, 2, 3, 5, 8, 13};
  const auto refusal = [&](auto change) {
    TrainingState state = make_state(1);
    state.position.order_position = 6;
    state.proxy_position.order_position = 6;
    state.subset_ids = {2, 5, 13};
    state.subset_weights = {1.0F, 0.0F, 2.5F};
    change(state);
    try {
      check_examples(state, "file", candidates);
    } catch (const CheckpointError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal([](TrainingState&) {}), "");
  EXPECT_EQ(refusal([](TrainingState& s) { s.subset_ids = std::nullopt; }), "");
  const auto expect = [&](const char* word, auto change) {
    EXPECT_NE(refusal(change).find(word), std::string::npos) << word;
  };
  expect("example 7 of", [](TrainingState& s) { s.position.order_position = 7; });
  expect("example 8 of", [](TrainingState& s) { s.proxy_position.order_position = 8; });
  expect("no training examples", [](TrainingState& s) { s.subset_ids = {2, 4, 13}; });
  expect("no training examples", [](TrainingState& s) { s.subset_ids = {-1, 5, 13}; });
  expect("no training examples", [](TrainingState& s) { s.subset_ids = {2, 5, std::int64_t{10'000'000'000}}; });
  expect("ascending", [](TrainingState& s) { s.subset_ids = {5, 2, 13}; });
  expect("ascending", [](TrainingState& s) { s.subset_ids = {2, 5, 5}; });
  expect("the weight -1", [](TrainingState& s) { s.subset_weights[1] = -1.0F; });
  expect("the weight nan", [](TrainingState& s) { s.subset_weights[1] = std::nanf(""); });
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
  EXPECT_EQ(point.state.position.epoch, 10) << "by number, not by name";
  EXPECT_EQ(point.path, epoch_file(10));
  EXPECT_TRUE(point.notes.empty());

  std::string damaged = bytes_of(epoch_file(10));
  damaged[damaged.size() - 3] ^= 1;
  put_bytes(epoch_file(10), damaged);
  point = find_resume_point(folder_);
  EXPECT_EQ(point.state.position.epoch, 9);
  ASSERT_EQ(point.notes.size(), 1U);
  EXPECT_TRUE(contains(point.notes[0], "checkpoint_epoch_10.safetensors"));
  EXPECT_TRUE(contains(point.notes[0], "checksum"));
  EXPECT_EQ(find_resume_point(folder_ / "checkpoints").state.position.epoch, 9);

  for (const std::int64_t epoch : {2, 9}) put_bytes(epoch_file(epoch), "short");
  const std::string message = message_of<CheckpointError>([&] { find_resume_point(folder_); });
  for (const char* name : {"epoch_2.", "epoch_9.", "epoch_10."}) EXPECT_TRUE(contains(message, name));
}

TEST_F(Checkpoint, ResumeFromAFileOrByAnotherName) {
  write_epochs({4});
  ResumePoint point = find_resume_point(epoch_file(4));
  EXPECT_EQ(point.state.position.epoch, 4);
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
  EXPECT_TRUE(back.learner.optimizer.empty());
  EXPECT_FALSE(back.proxy || back.selection);
  expect_same(back.learner.model, make_state(5).learner.model);
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { find_resume_point(path); }), "weights only"));
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { find_resume_point(folder_); }), "no checkpoint"));
}

TEST_F(Checkpoint, OldOnesAreRemovedButTwo) {
  write_epochs({1, 2, 10});
  const fs::path within = checkpoint_path(folder_ / "checkpoints", {10, 115});
  write_checkpoint(within, make_state(10));
  write_checkpoint(folder_ / "checkpoints" / "best_model.safetensors", make_state(1), CheckpointContent::weights_only);
  const auto removed = remove_old_checkpoints(folder_ / "checkpoints", 2);
  EXPECT_EQ(removed, (std::vector<fs::path>{epoch_file(2), epoch_file(1)}));
  EXPECT_TRUE(fs::exists(epoch_file(10)) && fs::exists(within));
  EXPECT_TRUE(fs::exists(folder_ / "checkpoints" / "best_model.safetensors"));
  EXPECT_THROW(remove_old_checkpoints(folder_ / "checkpoints", 1), InternalError);
}

TEST_F(Checkpoint, AFailedWriteLeavesTheOldOne) {
  write_epochs({3});
  const std::string before = bytes_of(epoch_file(3));
  TrainingState larger = make_state(3);
  larger.learner.model.push_back({"large", at::zeros({100000}, at::kFloat)});
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
  EXPECT_EQ(find_resume_point(folder_).state.position.epoch, 3);
}

}  // namespace
}  // namespace sage
