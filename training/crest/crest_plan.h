// What CREST does with a configuration and a data set: sizes that follow from both, the same on every rank.
#pragma once
#include <cstdint>

#include "training/experiment.h"

namespace sage {

struct CrestPlan {
  std::int64_t steps_per_epoch = 0;  ///< of a short epoch: ceil(floor(N train_fraction) / batch)
  std::int64_t set_size = 0;         ///< r: round(N random_set), at least 1
  std::int64_t of_each_class = 0;    ///< of a random set: ceil(r / C)
  std::int64_t coreset_size = 0;     ///< m: the batch, or the whole set where that is smaller
  std::int64_t least_remaining = 0;  ///< examples that are never excluded: ceil(N min_remaining)
  std::int64_t most_forwarded = 0;   ///< examples in the forward pass of a selection, at most
  std::int64_t first_coresets = 0;   ///< P of the first selection
};

/// For an experiment with selection.method crest. Throws ConfigError for a budget without a step, for a class with
/// fewer examples than a random set takes of it, and for settings that crest does not go with.
CrestPlan plan_crest(const Experiment& experiment);

}  // namespace sage
