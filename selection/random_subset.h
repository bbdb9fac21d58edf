// Random subsets: a function of the seed and the round alone, whatever the number of ranks.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "selection/selection.h"

namespace sage {

/// `total` of the positions of `labels` that are not in `excluded` (ascending positions), as many of each class as
/// there can be, uniform within a class by RandomStream(seed, name, round, class). Ascending. There must be that many.
std::vector<std::int64_t> draw_balanced(std::span<const std::int64_t> labels, std::int64_t class_count,
                                        std::span<const std::int64_t> excluded, std::int64_t total, std::uint64_t seed,
                                        std::string_view name, std::uint64_t round);

/// `total` of the positions 0 to count - 1, uniform. Ascending.
std::vector<std::int64_t> draw_uniform(std::int64_t count, std::int64_t total, std::uint64_t seed,
                                       std::string_view name, std::uint64_t round);

/// The method `random`: class-balanced if selection.per_class, else uniform. No communication.
SelectionResult select_random(const SelectionRequest& request);
/// The method `full`: everything. No communication.
SelectionResult select_full(const SelectionRequest& request);

}  // namespace sage
