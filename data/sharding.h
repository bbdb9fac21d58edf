// Who works on which examples: pure planning, the same on every rank, no communication.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sage {

/// Positions begin .. end - 1.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// Part `part` of {0, ..., count - 1} cut into `parts` contiguous runs whose sizes differ by at most one, the longer
/// ones first. Runs may be empty. Evaluation uses it as it is: every example once, no padding.
Range balanced_range(std::int64_t count, int part, int parts);

/// The order of one epoch and its cut into batches. Global batch b is order[b B, (b + 1) B), whatever the number of
/// ranks; a rank takes a contiguous, balanced part of each, which may be empty in the last one. So every rank makes the
/// same number of steps.
class EpochPlan {
 public:
  /// `ids`: the examples to train on. `batch_size`: global, in examples. The order is a pure function of
  /// (seed, epoch, ids).
  EpochPlan(std::span<const std::int64_t> ids, std::int64_t batch_size, int rank, int ranks, std::uint64_t seed,
            std::int64_t epoch);

  /// Forgets the first `examples` of the order, a multiple of the batch size or all: an epoch that goes on. Steps then
  /// count from there.
  void skip(std::int64_t examples);

  std::int64_t steps() const;
  std::int64_t epoch() const { return epoch_; }
  std::uint64_t seed() const { return seed_; }
  std::span<const std::int64_t> order() const { return order_; }
  /// The number of batch `step` within the whole epoch, what was skipped included.
  std::int64_t step_of_epoch(std::int64_t step) const { return skipped_ / batch_size_ + step; }
  /// Ids of all ranks in step `step`.
  std::span<const std::int64_t> global_batch(std::int64_t step) const;
  /// Which positions of global_batch(step) are this rank's.
  Range local_range(std::int64_t step) const;
  /// Ids of this rank in step `step`.
  std::span<const std::int64_t> local_batch(std::int64_t step) const;

 private:
  std::vector<std::int64_t> order_;
  std::int64_t batch_size_, skipped_ = 0;
  int rank_, ranks_;
  std::uint64_t seed_;
  std::int64_t epoch_;
};

}  // namespace sage
