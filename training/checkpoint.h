// What a run needs to go on, in one safetensors file: weights under the model's own names (so that
// safetensors.torch.load_file in Python gives a state dict), the rest under "training/...", and a JSON state in the
// header. training/resume.h finds such files, training/checkpoint_writer.h writes them beside the training.
//
// No random state is kept: every draw is a pure function of the seed, a name and a position (core/random.h), and the
// positions are here. The learning rate is a pure function of the step.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"
#include "selection/selection.h"

namespace sage {

/// How far the training of a network is.
struct TrainingPosition {
  std::int64_t epoch = 0;           ///< completed epochs
  std::int64_t step = 0;            ///< optimizer steps done
  std::int64_t order_position = 0;  ///< examples of the running epoch's order already used; 0 between epochs
  std::int64_t examples = 0;        ///< back-propagated so far, over all ranks
  bool operator==(const TrainingPosition&) const = default;
};

/// What a rank holds for itself.
struct RankState {
  std::vector<NamedTensor> learner;  ///< Learner::state()
  std::vector<NamedTensor> buffers;  ///< where each rank has batch statistics of its own (sync_batch_norm: false)
};

/// A network in training.
struct LearnerState {
  std::vector<NamedTensor> model;      ///< parameters and buffers, with the names of copy_state() (models/weights.h)
  std::vector<NamedTensor> optimizer;  ///< Optimizer::state(); empty where the training is over
  std::vector<RankState> ranks;        ///< of all ranks; empty where the training is over
};

struct TrainingState {
  // What it belongs to.
  std::string model;    ///< model.name
  std::string dataset;  ///< data.name
  std::int64_t class_count = 0;
  std::string config_json;  ///< the resolved configuration
  std::uint64_t seed = 0;
  std::int64_t global_batch = 0;  ///< examples per optimizer step, over all ranks
  // Where it stands.
  TrainingPosition position;
  std::int64_t selection_round = 0;         ///< selections done
  std::int64_t selection_epoch = -1;        ///< completed epochs when the last one was done; -1: none was
  double seconds = 0.0;                     ///< spent in the running epoch so far
  double selection_seconds = 0.0;           ///< of these, spent in a selection that is not done
  std::optional<double> best_accuracy;      ///< in [0, 1]
  std::int64_t best_epoch = 0;              ///< completed epochs then
  TrainingPosition proxy_position;          ///< of the proxy's training, also after it
  double proxy_seconds = 0.0;               ///< that it took
  std::optional<SelectionState> selection;  ///< a selection that was stopped half-way
  std::optional<SelectionState> crest;      ///< of a run with selection.method crest
  // The networks.
  LearnerState learner;
  std::optional<LearnerState> proxy;                    ///< in training, or needed by a selection to come
  std::optional<std::vector<std::int64_t>> subset_ids;  ///< examples being trained on; none: all
  std::vector<float> subset_weights;                    ///< of subset_ids; empty: all 1
  std::vector<NamedTensor> memory;                      ///< what selection remembers of training and of its networks
  std::vector<NamedTensor> dropout;                     ///< ProgressiveDropout::state(); empty: there is none

  /// In the middle of a selection or of the training of its proxy.
  bool has_begun_selection() const;
  /// Between two epochs, with nothing begun of the next one.
  bool is_between_epochs() const;
  /// Counts everything that a run does: steps of the network and of a proxy.
  std::int64_t all_steps() const { return position.step + proxy_position.step; }
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

/// A checkpoint is a file from elsewhere: throws CheckpointError unless what indexes the examples can, namely a subset
/// of `candidates` (ascending) in ascending order, finite weights of at least 0, and a position within an epoch.
void check_examples(const TrainingState& state, const std::filesystem::path& path,
                    std::span<const std::int64_t> candidates);

/// Throws CheckpointError naming every difference in what decides which examples are trained on, and in which order:
/// the seed, the global batch, the keys of data.* that split or change the labels, and, where a selection was stopped
/// half-way or crest selects, selection.*, and in the middle of an epoch dropout.*. For resuming; anything else (rates,
/// lengths, output) may change.
void check_same_course(const TrainingState& state, const std::filesystem::path& path, const Config& config,
                       std::int64_t global_batch);

/// Copies `source` into the tensors of the same names (any device and layout). Throws CheckpointError, having changed
/// nothing, unless both hold the same names with the same shapes and types; `what` says what is being loaded.
void load_tensors(std::span<const NamedTensor> destination, std::span<const NamedTensor> source,
                  const std::string& what);

}  // namespace sage
