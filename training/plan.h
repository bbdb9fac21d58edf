// What a run will do and what it needs, without doing it: `sage train --dry-run`.
#pragma once
#include <optional>
#include <string>

#include "training/crest/crest_plan.h"
#include "training/experiment.h"

namespace sage {

/// Memory of one rank in bytes, by what it is for. An estimate: LibTorch's own workspace and the program are left out.
struct MemoryPlan {
  std::int64_t images = 0;       ///< data set as bytes
  std::int64_t network = 0;      ///< weights, gradients, optimizer state, reduction buckets
  std::int64_t activations = 0;  ///< inputs and outputs of the layers for this rank's part of a batch
  std::int64_t sketches = 0;     ///< buffer and unfinished nodes of the merge tree
  std::int64_t crest = 0;        ///< vectors of the quadratic model, and the network's answers for its random sets
  std::int64_t scores = 0;       ///< projected gradients, features and scores kept between the passes
  /// Selection and training do not overlap: the larger of both counts.
  std::int64_t peak() const { return images + network + crest + std::max(activations, sketches + scores); }
};

struct Plan {
  std::int64_t candidates = 0, kept = 0;
  std::int64_t epochs = 0, total_steps = 0, full_epoch_steps = 0, subset_epoch_steps = 0;
  std::vector<std::int64_t> selection_epochs;  ///< completed epochs at which a subset is chosen
  std::int64_t parameters = 0, gradient_dimension = 0, sketch_rows = 0;
  bool exact_covariance = false;
  std::optional<CrestPlan> crest;  ///< selection.method crest
  std::int64_t shards = 0, shards_of_rank = 0;
  std::int64_t batch_of_rank = 0;  ///< largest part of a global batch
  MemoryPlan memory;
};

/// No collectives; `rank` of `ranks` is whose part is described.
Plan make_plan(const Experiment& experiment, Classifier& network, int rank, int ranks);

/// For people: several lines.
std::string to_string(const Plan& plan, const Experiment& experiment, int ranks);

}  // namespace sage
