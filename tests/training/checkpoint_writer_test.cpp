// Checkpoints written beside the training: whole or not there, whatever happens to the process or the disk.
#include "training/checkpoint_writer.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "core/stopwatch.h"
#include "support/small_disk.h"
#include "support/temporary_folder.h"
#include "training/resume.h"
#include "training/run_folder.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using testing::contains;
using testing::message_of;

constexpr std::int64_t kValues = 100'000;  // in the weights, and once more in the optimizer's state

/// All values tell the epoch.
CheckpointOrder order_of(std::int64_t epoch, std::int64_t values = kValues) {
  CheckpointOrder order;
  order.state.config_json = "{}";
  order.state.position.epoch = epoch;
  const auto value = static_cast<double>(epoch);
  order.state.learner.model = {{"weight", at::full({values}, value, at::kFloat)}};
  order.state.learner.optimizer = {{"weight.momentum_buffer", at::full({values}, -value, at::kFloat)}};
  return order;
}

bool tells(const TrainingState& state, std::int64_t epoch) {
  const CheckpointOrder expected = order_of(epoch, state.learner.model.front().tensor.numel());
  return state.position.epoch == epoch &&
         state.learner.model.front().tensor.equal(expected.state.learner.model.front().tensor) &&
         state.learner.optimizer.front().tensor.equal(expected.state.learner.optimizer.front().tensor);
}

class Writer : public testing::TemporaryFolder {
 protected:
  std::int64_t count_whole() const {
    std::int64_t whole = 0;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (const auto name = parse_checkpoint_name(entry.path())) {
        whole += tells(read_checkpoint(entry.path()), name->epoch) ? 1 : 0;
      }
    }
    return whole;
  }
};

TEST_F(Writer, AnnouncesWhatIsWholeAndKeepsTheNewest) {
  std::vector<fs::path> announced;
  {
    CheckpointWriter writer(folder_, 3, [&](const fs::path& path) {
      announced.push_back(path);
      EXPECT_TRUE(tells(read_checkpoint(path), static_cast<std::int64_t>(announced.size())));
    });
    for (std::int64_t epoch = 1; epoch <= 6; ++epoch) {
      CheckpointOrder order = order_of(epoch);
      order.best_model = epoch == 4;
      writer.submit(std::move(order));
    }
  }
  EXPECT_EQ(announced.size(), 6U);
  EXPECT_EQ(count_whole(), 3);
  EXPECT_TRUE(tells(find_resume_point(folder_).state, 6));
  const TrainingState best = read_checkpoint(folder_ / "best_model.safetensors");
  EXPECT_EQ(best.position.epoch, 4);
  EXPECT_TRUE(best.learner.optimizer.empty());
}

TEST_F(Writer, AFailureReachesTheTrainerAndLosesNothing) {
  const testing::SmallDisk disk(folder_ / "disk", 2 << 20);
  CheckpointWriter writer(disk.path(), 2, [](const fs::path&) {});
  writer.submit(order_of(1));
  writer.submit(order_of(2));
  EXPECT_NO_THROW(writer.finish());
  // Too large by far for what is left, at the next order, at a look in between, and at the end.
  writer.submit(order_of(3, 40 * kValues));
  const std::string message = message_of<EnvironmentError>([&] { writer.submit(order_of(4)); });
  EXPECT_TRUE(contains(message, "checkpoint_epoch_3.safetensors"));
  EXPECT_TRUE(contains(message, "check free space"));
  EXPECT_NO_THROW(writer.finish()) << "told once";
  writer.submit(order_of(3, 40 * kValues));
  EXPECT_THROW(
      {
        for (int i = 0; i < 10'000; ++i) {
          writer.check();
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      },
      EnvironmentError);
  writer.submit(order_of(3, 40 * kValues));
  EXPECT_THROW(writer.finish(), EnvironmentError);
  const ResumePoint point = find_resume_point(disk.path());
  EXPECT_TRUE(tells(point.state, 2));
  EXPECT_TRUE(tells(read_checkpoint(checkpoint_path(disk.path(), {1, {}})), 1));
  EXPECT_TRUE(point.notes.empty());
  EXPECT_EQ(std::distance(fs::directory_iterator(disk.path()), fs::directory_iterator()), 2)
      << "what was begun is gone: its space is free again";
}

TEST_F(Writer, AReadOnlyFolderIsNamed) {
  const fs::path folder = folder_ / "checkpoints";
  fs::create_directories(folder);
  CheckpointWriter writer(folder, 2, {});
  const testing::ReadOnlyFolder forbidden(folder);
  writer.submit(order_of(1));
  EXPECT_TRUE(contains(message_of<EnvironmentError>([&] { writer.finish(); }), folder.string()));
}

TEST_F(Writer, AnErrorThatPassesDoesNotWaitForADiskThatDoesNotAnswer) {
  // In the place of the file that is written: as long as nobody reads from the pipe, its opening does not return.
  const fs::path pipe = checkpoint_path(folder_, {1, {}}).string() + "." + std::to_string(getpid()) + ".tmp";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Stopwatch watch;
  EXPECT_EQ(message_of<ConfigError>([&] {
              CheckpointWriter writer(folder_, 2, {});
              writer.submit(order_of(1));
              EXPECT_EQ(writer.files(), checkpoint_path(folder_, {1, {}}).string());
              throw ConfigError("the cause");
            }),
            "the cause");
  EXPECT_LT(watch.seconds(), 30.0);
  EXPECT_FALSE(testing::bytes_of(pipe).empty()) << "the thread goes on without the writer";
}

/// Shared with a process that is killed.
struct Progress {
  std::atomic<std::int64_t> begun{0}, announced{0};
};

/// Saves one epoch after the other until it is killed.
[[noreturn]] void save_for_ever(const fs::path& path, std::int64_t first, Progress& progress) {
  try {
    const RunFolder folder = RunFolder::open(path, OpenMode::resume);  // one run at a time, also after a kill
    std::int64_t writes = first;
    CheckpointWriter writer(folder.checkpoints(), 2, [&](const fs::path&) { progress.announced = writes++; });
    for (std::int64_t epoch = first;; ++epoch) {
      progress.begun = epoch;
      writer.submit(order_of(epoch));
    }
  } catch (const std::exception& error) {
    std::fputs(error.what(), stderr);
  }
  _exit(1);
}

TEST_F(Writer, AKillAtAnyMomentOfSavingLeavesWholeCheckpoints) {
  void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto& progress = *new (memory) Progress;
  const fs::path run = folder_ / "run";
  RandomStream random(3, "kills");
  std::int64_t newest = 0;
  int interrupted = 0;
  for (int kill_number = 0; kill_number < 200; ++kill_number) {
    progress.begun = 0;
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_for_ever(run, newest + 1, progress);
    while (progress.begun.load() == 0 && waitpid(child, nullptr, WNOHANG) == 0) std::this_thread::yield();
    // The first two are let through, so that there is something to lose.
    while (kill_number == 0 && progress.announced.load() < 2) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(12'000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself, with " << WEXITSTATUS(status);

    const ResumePoint point = find_resume_point(run);
    newest = point.state.position.epoch;
    ASSERT_TRUE(point.notes.empty()) << "a damaged one under its proper name";
    ASSERT_TRUE(tells(point.state, newest));
    ASSERT_GE(newest, progress.announced.load()) << "what was announced is there";
    ASSERT_LE(newest, progress.begun.load());
    std::int64_t whole = 0, parts = 0;
    for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
      const auto name = parse_checkpoint_name(entry.path());
      if (!name) {
        ASSERT_TRUE(contains(entry.path().string(), ".tmp"));
        ++parts;
        continue;
      }
      ASSERT_TRUE(tells(read_checkpoint(entry.path()), name->epoch));
      ++whole;
    }
    ASSERT_GE(whole, 2);
    ASSERT_LE(parts, 1) << "what a kill leaves is removed by the next run";
    interrupted += parts > 0 ? 1 : 0;
  }
  EXPECT_GT(interrupted, 20) << "kills hit writes";
  // What kills between a save and the removal of older ones have left, goes with the next save.
  CheckpointWriter writer(run / "checkpoints", 2, {});
  writer.submit(order_of(newest + 1));
  writer.finish();
  RunFolder::open(run, OpenMode::resume);
  EXPECT_EQ(std::distance(fs::directory_iterator(run / "checkpoints"), fs::directory_iterator()), 2);
  munmap(memory, sizeof(Progress));
}

}  // namespace
}  // namespace sage
