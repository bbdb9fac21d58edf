// From scores to the examples that are kept: the exact quota, with or without cutting off labels in doubt first.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "selection/example_scores.h"
#include "selection/label_filter.h"
#include "selection/selection.h"

namespace sage {

/// Class-balanced positions of `total` candidates, none of them in `excluded` (ascending). ALL ranks may be needed.
using CoverageDraw =
    std::function<std::vector<std::int64_t>(std::span<const std::int64_t> excluded, std::int64_t total)>;

/// How far labels are trusted, by selection.filter.by. By the scores: agreement; or, where norms were taken, the
/// smaller the more, and gradients that are not finite not at all.
std::vector<float> trust_of(const SelectionConfig& config, const SelectionResult& result);

/// Positions of the round(fraction x N) highest scores, by class if selection.per_class; ascending.
std::vector<std::int64_t> best_by_score(const SelectionRequest& request, std::span<const float> scores);

/// Fills `kept`, `doubtful`, `estimated_noise` and the class histogram of `result` from its scores. `doubts` after
/// reduce_counts(), or null where the cut is given. The same on every rank; ALL ranks where `cover` needs them: it
/// draws what `keep: coverage` keeps.
void choose_by_score(const SelectionRequest& request, const ConfidentCounting* doubts, const CoverageDraw& cover,
                     SelectionResult& result);

}  // namespace sage
