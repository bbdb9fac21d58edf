// Wrong labels and missing examples on purpose, and the validation split. All depend on the seed and the ids only.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

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

/// Gives the examples `ids` the labels of a file that people labelled (CIFAR-N: one byte for each training example, in
/// the official order), in place. Returns the ids whose label changed, ascending. `allow_partial`: the file may hold
/// more labels than there are examples, whose first they are. Throws DataError naming the file and the record if it has
/// another number of labels, one that is no class, no label that differs, or hardly one that agrees (the file of
/// another data set).
std::vector<std::int64_t> take_human_labels(std::vector<std::int64_t>& labels, std::span<const std::int64_t> ids,
                                            std::int64_t class_count, const std::filesystem::path& file,
                                            bool allow_partial);

/// Ids that stay and ids that go, each ascending; together all that there were.
struct Thinned {
  std::vector<std::int64_t> kept, dropped;
};

/// Class c keeps floor(n_max imbalance^(c / (C - 1))) of its examples `ids`, chosen at random, and all if it has fewer;
/// n_max: examples of the largest class. Cui et al.: "Class-balanced loss based on effective number of samples", CVPR
/// 2019. imbalance in (0, 1]. Throws ConfigError naming the class that would have no example left.
Thinned make_long_tail(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                       std::int64_t class_count, double imbalance, std::uint64_t seed);

/// In the floor(C / 2) classes with the fewest of the examples `ids` (ties: the lowest class) each example is dropped
/// with probability `rate`, in [0, 1). Throws ConfigError naming the class that would have no example left.
Thinned downsample_minority(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                            std::int64_t class_count, double rate, std::uint64_t seed);

/// Ids, each list ascending; together all of them.
struct ValidationSplit {
  std::vector<std::int64_t> train, validation;
};

/// Takes round(fraction x ids.size()) of the examples `ids` for validation, from every class in proportion (largest
/// remainder; ties to the lower class). fraction in [0, 1). Throws ConfigError if it is not, or if a non-zero
/// fraction takes no example or all.
ValidationSplit split_validation(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                                 std::int64_t class_count, double fraction, std::uint64_t seed);

}  // namespace sage
