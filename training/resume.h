// Checkpoints in their folder: what they are called, which one a run goes on from, and which ones are kept.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "training/checkpoint.h"

namespace sage {

/// checkpoint_epoch_N.safetensors: after N completed epochs. checkpoint_epoch_N_step_S.safetensors: on the way from
/// there, after S steps of the run, those of a proxy included. Compares by age.
struct CheckpointName {
  std::int64_t epoch = 0;
  std::optional<std::int64_t> step;
  auto operator<=>(const CheckpointName&) const = default;
};
CheckpointName checkpoint_name(const TrainingState& state);
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, const CheckpointName& name);
/// Of the weights that were judged best, in a folder of checkpoints.
std::filesystem::path best_model_path(const std::filesystem::path& folder);
/// None for a file that is called otherwise.
std::optional<CheckpointName> parse_checkpoint_name(const std::filesystem::path& path);

/// The file that a user means by `path`: itself, or where it does not exist the same name ending in .safetensors (for
/// one ending in .pt or in nothing), beside it or in a `checkpoints` folder there. Other choices than `path` itself are
/// told in `notes`. Throws CheckpointError listing what was looked for.
std::filesystem::path find_checkpoint(const std::filesystem::path& path, std::vector<std::string>& notes);

/// The run folder that a checkpoint lies in (<run>/checkpoints/<file>), or its own folder. Absolute.
std::filesystem::path run_folder_of(const std::filesystem::path& checkpoint);

struct ResumePoint {
  std::filesystem::path path;
  TrainingState state;
  std::vector<std::string> notes;  ///< for the log: what was passed over and why
};
/// `from`: a checkpoint (as in find_checkpoint) or a run folder, of which the newest whole checkpoint is taken. Throws
/// CheckpointError if there is none, with the reason for each file, or if a given file holds weights only.
ResumePoint find_resume_point(const std::filesystem::path& from);

/// Removes all but the newest `keep` (at least 2) checkpoints of a `checkpoints` folder, and returns what was removed.
/// Call it after a checkpoint was written.
std::vector<std::filesystem::path> remove_old_checkpoints(const std::filesystem::path& folder, std::int64_t keep);

/// Where a run stands, for people: "after epoch 3, step 120"; "in the proxy's training, step 140 of 800", of which
/// `proxy_steps` is the last. Of a state that was read, or that rank 0 is about to write.
std::string describe(const TrainingState& state, std::int64_t proxy_steps);

}  // namespace sage
