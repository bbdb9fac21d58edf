// Which examples of a batch are trained on: progressive data dropout (arXiv 2505.22342) and its distributed additions,
// as pure functions of the scored GLOBAL batch. What they return depends neither on the order of the examples nor on
// the number of ranks.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace sage {

/// What the network says of the examples of ALL ranks in one step: one entry each in every list.
struct ScoredBatch {
  std::vector<std::int64_t> ids, labels;
  std::vector<double> p_true;  ///< probability of the example's class; below 0 where it is not finite
  std::vector<std::uint8_t> is_hard;

  std::size_t size() const { return ids.size(); }
  /// Number of hard examples: the budget of most modes.
  std::int64_t hard_count() const;
};

enum class HardRule {
  true_class,  ///< p_true < threshold
  either,      ///< p_true < threshold, or misclassified
};

/// A threshold of 0 asks for what is misclassified. A probability that is not finite is hard: its loss has to be seen.
bool is_hard(double p_true, bool is_right, double threshold, HardRule rule);

/// Keys the random draws of one batch: each example draws from (seed, epoch, batch, its id) alone.
struct DrawKey {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
  std::int64_t batch = 0;  ///< within the epoch
};

/// One entry for each example of the batch: 1 where it is trained on.
using KeptMask = std::vector<std::uint8_t>;

std::int64_t kept_count(const KeptMask& mask);

/// `count` random examples (at most all): those with the smallest draws.
KeptMask keep_random(std::span<const std::int64_t> ids, std::int64_t count, const DrawKey& key);

/// The budget (number of hard examples) split over the classes present in proportion to their count in the batch, by
/// largest remainder (ties to the lower class), at least one for each class that has a hard example: those take it from
/// the largest quotas. Each class takes its hard examples first, then the others, both by ascending p_true (ties to the
/// lower id).
KeptMask keep_stratified(const ScoredBatch& batch, std::int64_t class_count);
/// The quotas of keep_stratified, of each class.
std::vector<std::int64_t> stratified_quotas(std::span<const std::int64_t> count_of_class,
                                            std::span<const std::int64_t> hard_of_class);

/// The budget split over the classes present in proportion to `proportions` [C] (>= 0), by largest remainder (ties to
/// the lower class); random examples of each class. What a class does not have is made up for at random from the rest
/// of the batch, so that exactly the budget is kept.
KeptMask keep_adaptive(const ScoredBatch& batch, std::span<const double> proportions, const DrawKey& key);
/// `budget` split in proportion to the weights (not all 0) by largest remainder, ties to the lower position; sums to
/// the budget exactly.
std::vector<std::int64_t> largest_remainders(std::int64_t budget, std::span<const double> weights);

/// floor(gamma^epoch x size): what `srd` keeps of a batch.
std::int64_t scheduled_count(double gamma, std::int64_t epoch, std::int64_t size);

/// InfoBatch (Qin et al., ICLR 2024): which of `ids` an epoch trains on, in their order. One whose score (its last
/// loss) lies below the mean of all finite scores is left out with probability `prune`, drawn from (seed, epoch, id);
/// one without a finite score is kept. `weights`: 1 / (1 - prune) for those that were at risk, else 1.
struct PrunedEpoch {
  std::vector<std::int64_t> ids;
  std::vector<float> weights;
};
PrunedEpoch prune_epoch(std::span<const std::int64_t> ids, std::span<const float> score_of_id, double prune,
                        std::uint64_t seed, std::int64_t epoch);

}  // namespace sage
