// Wrong labels on purpose, and the validation split. Both depend on the seed and the ids only.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace sage {

/// Gives exactly round(rate x ids.size()) of the examples `ids` another label than they have, in place. `kind`:
/// `symmetric` draws one of the other classes uniformly, `pair` takes the next class (label + 1 mod class_count).
/// Returns the ids of the changed examples, ascending. Throws ConfigError for an unknown kind, a rate outside [0, 1] or
/// less than two classes.
std::vector<std::int64_t> corrupt_labels(std::vector<std::int64_t>& labels, std::span<const std::int64_t> ids,
                                         std::int64_t class_count, double rate, std::string_view kind,
                                         std::uint64_t seed);
/// The same over all examples.
std::vector<std::int64_t> corrupt_labels(std::vector<std::int64_t>& labels, std::int64_t class_count, double rate,
                                         std::string_view kind, std::uint64_t seed);

/// Ids of the train split, each list ascending; together all of them.
struct ValidationSplit {
  std::vector<std::int64_t> train, validation;
};

/// Takes round(fraction x N) examples of the train split for validation, from every class in proportion (largest
/// remainder; ties to the lower class). fraction in [0, 1). Throws ConfigError if it is not, or if a non-zero
/// fraction takes no example or all.
ValidationSplit split_validation(const Dataset& dataset, double fraction, std::uint64_t seed);

}  // namespace sage
