// Checkpoints written beside the training: one at a time, by a thread of their own.
#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "training/checkpoint.h"
#include "training/host_copies.h"

namespace sage {

/// What is to be written. `state` holds tensors that nobody changes any more, once `copies` has them.
struct CheckpointOrder {
  TrainingState state;
  HostCopies copies;
  bool checkpoint = true;   ///< everything, under the name that fits the state
  bool best_model = false;  ///< best_model.safetensors: the weights; written first, so that no checkpoint knows of a
                            ///< best model that is not there
};

/// Rank 0 only, and one thread.
class CheckpointWriter {
 public:
  using Announce = std::function<void(const std::filesystem::path&)>;
  /// Into `folder`, where the newest `keep` checkpoints stay. `announce` is called by the writing thread for each
  /// checkpoint that is whole and safe: renamed, and the folder synced. Older ones are removed after that.
  CheckpointWriter(std::filesystem::path folder, std::int64_t keep, Announce announce);
  /// Waits for what is under way. What fails then is a warning in the log. While an exception passes it waits a second
  /// at most, since on a disk that does not answer nobody would hear of the error: the thread is left to itself then,
  /// and ends with its write or with the process.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Begins to write, after what is under way is written. Throws EnvironmentError where that failed: then nothing new
  /// is begun.
  void submit(CheckpointOrder order);
  /// Waits for what is under way, but no longer than `patience`. Returns whether it still is.
  bool is_busy_after(std::chrono::milliseconds patience) const;
  /// Throws EnvironmentError where a write has failed; does not wait for one under way.
  void check();
  /// Waits for what is under way; throws EnvironmentError where it failed.
  void finish();
  /// The files of the last order, for people.
  const std::string& files() const { return files_; }

 private:
  /// What the thread goes by, also where it outlives the writer.
  struct Place {
    std::filesystem::path folder;
    std::int64_t keep = 0;
    Announce announce;
  };
  static void write(const Place& place, const CheckpointOrder& order);

  std::shared_ptr<const Place> place_;
  std::string files_;
  std::thread thread_;
  std::future<void> under_way_;  // valid as long as thread_ was not joined
};

}  // namespace sage
