// How often examples are forgotten while a network learns: right at one visit, wrong at the next.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/named_tensor.h"
#include "distributed/communicator.h"

namespace sage {

/// Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019. An example
/// is visited at most once an epoch, by any rank; ranks put together what they saw at the end of each epoch. Examples
/// that an epoch leaves out stay as they were. 9 bytes for each training example, and 4 more while ranks talk.
class ForgettingHistory {
 public:
  explicit ForgettingHistory(std::int64_t examples);

  /// What this rank saw in a step: whether each of `ids` was predicted right (bool [ids.size()], any device; waits for
  /// it). Local.
  void note(std::span<const std::int64_t> ids, const at::Tensor& right);
  /// ALL ranks, at the end of an epoch.
  void end_epoch(Communicator& communicator);

  /// Whether an epoch was ended.
  bool is_empty() const { return epochs_ == 0; }
  /// Of `ids`: right-to-wrong transitions, or kNeverLearned where an example was never right (or never visited).
  std::vector<std::int64_t> forgotten(std::span<const std::int64_t> ids) const;

  /// ALL ranks. The same on every rank, in the middle of an epoch too.
  std::vector<NamedTensor> state(Communicator& communicator) const;
  /// Throws CheckpointError if `state` is of other examples. What ranks saw of a running epoch is rank 0's from here
  /// on.
  void load_state(std::span<const NamedTensor> state, int rank);

 private:
  at::Tensor seen_in_epoch(Communicator& communicator) const;
  // All on the CPU, [examples].
  at::Tensor counts_;      // int32: transitions
  at::Tensor learned_;     // uint8: 0 never right, 1 right once but not at the last visit, 2 right at the last visit
  at::Tensor this_epoch_;  // int32, of this rank: 0 not seen, 1 wrong, 2 right
  std::int64_t epochs_ = 0;
};

}  // namespace sage
