// From scores to the examples that are kept: the exact quota, with or without cutting off labels in doubt first.
#pragma once
#include "selection/label_filter.h"
#include "selection/selection.h"

namespace sage {

/// The score of an example whose projected gradient is zero or not finite: below every agreement and every norm, and
/// finite, so that any file format holds it.
constexpr float kLowestScore = -2.0f;

/// Positions of the round(fraction x N) highest scores, by class if selection.per_class; ascending.
std::vector<std::int64_t> best_by_score(const SelectionRequest& request, std::span<const float> scores);

/// Fills `kept`, `doubtful`, `estimated_noise` and the class histogram of `result` from its scores. `doubts` after
/// reduce_counts(), or null where none were counted. Local, and the same on every rank.
void choose_by_score(const SelectionRequest& request, const ConfidentCounting* doubts, SelectionResult& result);

}  // namespace sage
