// When subsets are chosen, and how many steps a run takes.
#pragma once
#include <cstdint>
#include <vector>

#include "core/config.h"

namespace sage {

/// Whether batches are chosen while training, by crest (training/crest), instead of subsets before epochs.
bool is_crest(const SelectionConfig& config);

/// Whether a subset is chosen before epoch `epoch` (0-based):
///   mode none, or method full or crest, or all examples kept: never;
///   no_warmup: before epoch 0, and with mode iterative again each refresh_epochs;
///   else: before epoch warmup_epochs, and with mode iterative again each refresh_epochs after it.
bool selects_before(const SelectionConfig& config, std::int64_t epoch);
/// Whether the configuration asks for subsets at all, however long the run.
bool selects_at_all(const SelectionConfig& config);

/// Optimizer steps of each epoch: full epochs before the first selection, epochs over the subset after it.
/// training.steps > 0 makes as many epochs as that takes, the last one cut short.
std::vector<std::int64_t> steps_of_epochs(const Config& config, std::int64_t full_steps, std::int64_t subset_steps);

}  // namespace sage
