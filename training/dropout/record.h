#pragma once
#include <cstdint>
#include <vector>

namespace sage {

/// What progressive data dropout did in an epoch, over all ranks.
struct DropoutRecord {
  bool everything = false;         ///< the epoch trained on all: nothing was chosen
  std::int64_t offered = 0;        ///< examples of the epoch
  std::int64_t kept = 0;           ///< of these, back-propagated
  std::int64_t updates = 0;        ///< optimizer steps
  std::int64_t empty_batches = 0;  ///< batches of which nothing was kept
  /// By class; empty where nothing was chosen. Hard ones are 0 in modes that do not score.
  std::vector<std::int64_t> offered_of_class, hard_of_class, kept_of_class;
  /// apd, by class: after the epoch, as the next one will use them. Else empty.
  std::vector<double> difficulty, proportion;
  /// Of the epoch's steps, those of scoring included, in the process that ended the epoch: as its phases are.
  double training_seconds = 0.0;
  /// Spent on the epoch by the processes before it where a run was resumed among the epoch's steps, a selection
  /// included; else 0.
  double earlier_seconds = 0.0;
};

}  // namespace sage
