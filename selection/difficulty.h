// How hard each candidate is, and choosing by it.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "selection/selection.h"

namespace sage {

/// ALL ranks: `score` is el2n (||p - onehot||) or grand (the gradient's norm in the scope of selection.gradient) by
/// request.source, or request.difficulty where that is given; or forgetting, by request.forgotten. Of all candidates in
/// the order of ids. Fills the times, statistics and warnings of `result`.
std::vector<float> difficulty_of(const SelectionRequest& request, const std::string& score, SelectionResult& result);

}  // namespace sage
