// What a run needs to go on, in one safetensors file: weights under the model's own names (so that
// safetensors.torch.load_file in Python gives a state dict), the rest under "training/...", and a JSON state in the
// header.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"

namespace sage {

struct TrainingState {
  // What it belongs to.
  std::string model;    ///< model.name
  std::string dataset;  ///< data.name
  std::int64_t class_count = 0;
  std::string config_json;  ///< the resolved configuration
  std::uint64_t seed = 0;
  std::int64_t global_batch = 0;  ///< examples per optimizer step, over all ranks
  // Where it stands.
  std::int64_t epoch = 0;               ///< completed epochs
  std::int64_t step = 0;                ///< optimizer steps done
  std::int64_t order_position = 0;      ///< examples of the running epoch's order already used; 0 between epochs
  std::int64_t examples_seen = 0;       ///< back-propagated so far, over all ranks
  std::int64_t selection_round = 0;     ///< selections done
  std::optional<double> best_accuracy;  ///< in [0, 1]
  std::int64_t best_epoch = 0;
  std::map<std::string, std::string> extra;  ///< anything else, as text
  // The tensors.
  std::vector<NamedTensor> model_state;                 ///< parameters and buffers: copy_state() of models/weights.h
  std::vector<NamedTensor> optimizer_state;             ///< Optimizer::state(); empty in a file of weights only
  std::optional<std::vector<std::int64_t>> subset_ids;  ///< examples being trained on; none: all
};

enum class CheckpointContent { everything, weights_only };

/// Writes aside and renames: an interrupted write leaves the old file whole. Rank 0 only.
void write_checkpoint(const std::filesystem::path& path, const TrainingState& state,
                      CheckpointContent content = CheckpointContent::everything);

/// Throws CheckpointError naming the file and the cause: missing, cut short, damaged, or not a checkpoint of sage.
TrainingState read_checkpoint(const std::filesystem::path& path);

/// Throws CheckpointError naming every difference in model, data set and number of classes between the file and this
/// run.
void check_checkpoint_fits(const TrainingState& state, const std::filesystem::path& path, const std::string& model,
                           const std::string& dataset, std::int64_t class_count);

/// Throws CheckpointError naming every difference in what decides which examples are trained on, and in which order:
/// the seed, the global batch, and the keys of data.* that split or change the labels. For resuming; anything else
/// (rates, lengths, output) may change.
void check_same_course(const TrainingState& state, const std::filesystem::path& path, const Config& config,
                       std::int64_t global_batch);

/// Copies `source` into the tensors of the same names (any device and layout). Throws CheckpointError, having changed
/// nothing, unless both hold the same names with the same shapes and types; `what` says what is being loaded.
void load_tensors(std::span<const NamedTensor> destination, std::span<const NamedTensor> source,
                  const std::string& what);

/// <folder>/checkpoint_epoch_N.safetensors
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, std::int64_t epoch);

/// The file that a user means by `path`: itself, or where it does not exist the same name ending in .safetensors (for
/// one ending in .pt or in nothing), beside it or in a `checkpoints` folder there. Other choices than `path` itself are
/// told in `notes`. Throws CheckpointError listing what was looked for.
std::filesystem::path find_checkpoint(const std::filesystem::path& path, std::vector<std::string>& notes);

struct ResumePoint {
  std::filesystem::path path;
  TrainingState state;
  std::vector<std::string> notes;  ///< for the log: what was passed over and why
};
/// `from`: a checkpoint (as in find_checkpoint) or a run folder, of which the newest whole checkpoint is taken. Throws
/// CheckpointError if there is none, with the reason for each file, or if a given file holds weights only.
ResumePoint find_resume_point(const std::filesystem::path& from);

/// Removes all but the newest `keep` (at least 2) checkpoint_epoch_N files of a `checkpoints` folder, and returns what
/// was removed. Call it after a checkpoint was written.
std::vector<std::filesystem::path> remove_old_checkpoints(const std::filesystem::path& folder, std::int64_t keep);

}  // namespace sage
