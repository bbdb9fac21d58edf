// How well scores find the examples whose label is wrong, where it is known which ones are: for reports and studies
// only. Nothing that selects may see the truth.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace sage {

/// The probability that an example drawn from the bad ones scores lower than one drawn from the others, ties counting
/// half: the area under the ROC curve of "score low = bad". A score that is not a number counts as lower than every
/// number. None where all are bad or none is. `scores` and `is_bad` are equally long (InternalError). O(n log n).
/// Fawcett: "An introduction to ROC analysis", Pattern Recognition Letters 27(8), 2006, section 7.
std::optional<double> auroc(std::span<const float> scores, const std::vector<bool>& is_bad);

/// Of a list of suspects: the share that is bad, and the share of the bad that is in it.
struct PrecisionRecall {
  std::optional<double> precision;  ///< none for an empty list
  std::optional<double> recall;     ///< none where nothing is bad
};
/// Both ascending.
PrecisionRecall precision_recall(std::span<const std::int64_t> suspects, std::span<const std::int64_t> bad);

/// For each of `ids` whether it is one of `bad`; both ascending.
std::vector<bool> membership(std::span<const std::int64_t> ids, std::span<const std::int64_t> bad);

/// The `count` (at most all) of `ids` with the lowest scores, ascending; ties to the lower position, a score that is
/// not a number before all others. `ids` ascend and are as many as scores (InternalError).
std::vector<std::int64_t> lowest_scored(std::span<const std::int64_t> ids, std::span<const float> scores,
                                        std::int64_t count);

}  // namespace sage
