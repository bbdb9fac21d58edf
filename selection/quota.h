// How many examples are kept, in all and of each class.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sage {

/// round(fraction x count), halves up. Throws ConfigError if `fraction` is outside (0, 1] or selects nothing.
std::int64_t subset_size(double fraction, std::int64_t count);

/// Splits `total` over classes in proportion to `weights` by largest remainder (ties to the lower class). A class takes
/// no more than `available`; what it cannot take goes to the others by the same rule. The quotas sum to min(total, sum
/// of available) if every class with examples has a positive weight.
std::vector<std::int64_t> split_by_weight(std::int64_t total, std::span<const std::int64_t> weights,
                                          std::span<const std::int64_t> available);

/// The same with equal weights: as many of each class as there can be.
std::vector<std::int64_t> class_quota(std::int64_t total, std::span<const std::int64_t> available);

/// Examples per class.
std::vector<std::int64_t> count_classes(std::span<const std::int64_t> labels, std::int64_t class_count);

/// Positions of each class, ascending, but for those in `excluded` (ascending).
std::vector<std::vector<std::int64_t>> members_of_classes(std::span<const std::int64_t> labels,
                                                          std::int64_t class_count,
                                                          std::span<const std::int64_t> excluded = {});

/// Positions of the `total` highest scores, ties to the lower position; ascending.
std::vector<std::int64_t> highest(std::span<const float> scores, std::int64_t total);
/// Positions of the quota[c] highest scores of each class c, ties to the lower position; ascending.
std::vector<std::int64_t> highest_of_each_class(std::span<const float> scores, std::span<const std::int64_t> labels,
                                                std::span<const std::int64_t> quota);

}  // namespace sage
