#include "training/forgetting.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "selection/consensus.h"
#include "selection/selection.h"
#include "training/checkpoint.h"

namespace sage {
namespace {
constexpr std::int32_t kWrong = 1, kRight = 2;
constexpr std::uint8_t kLost = 1, kKnown = 2;
}  // namespace

ForgettingHistory::ForgettingHistory(std::int64_t examples)
    : counts_(at::zeros({examples}, at::kInt)),
      learned_(at::zeros({examples}, at::kByte)),
      this_epoch_(at::zeros({examples}, at::kInt)) {}

void ForgettingHistory::note(std::span<const std::int64_t> ids, const at::Tensor& right) {
  const at::Tensor host = right.cpu().contiguous();
  require(host.scalar_type() == at::kBool && host.numel() == static_cast<std::int64_t>(ids.size()),
          "one answer for each example of a step");
  auto* seen = this_epoch_.mutable_data_ptr<std::int32_t>();
  for (std::size_t i = 0; i < ids.size(); ++i) seen[ids[i]] = host.const_data_ptr<bool>()[i] ? kRight : kWrong;
}

at::Tensor ForgettingHistory::seen_in_epoch(Communicator& communicator) const {
  const at::Tensor seen = this_epoch_.clone();
  all_reduce_sum_anywhere(communicator, seen);
  return seen;
}

void ForgettingHistory::end_epoch(Communicator& communicator) {
  const at::Tensor all = seen_in_epoch(communicator);
  const auto* seen = all.const_data_ptr<std::int32_t>();
  auto* count = counts_.mutable_data_ptr<std::int32_t>();
  auto* learned = learned_.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t id = 0; id < all.numel(); ++id) {
    if (seen[id] == kRight) {
      learned[id] = kKnown;
    } else if (seen[id] == kWrong && learned[id] == kKnown) {
      learned[id] = kLost;
      ++count[id];
    }
  }
  this_epoch_.zero_();
  ++epochs_;
}

std::vector<std::int64_t> ForgettingHistory::forgotten(std::span<const std::int64_t> ids) const {
  std::vector<std::int64_t> result;
  result.reserve(ids.size());
  for (const std::int64_t id : ids) {
    const bool was_learned = learned_.const_data_ptr<std::uint8_t>()[id] != 0;
    result.push_back(was_learned ? counts_.const_data_ptr<std::int32_t>()[id] : kNeverLearned);
  }
  return result;
}

std::vector<NamedTensor> ForgettingHistory::state(Communicator& communicator) const {
  return {{"forgetting.counts", counts_.clone()},
          {"forgetting.learned", learned_.clone()},
          {"forgetting.this_epoch", seen_in_epoch(communicator)},
          {"forgetting.epochs", at::full({1}, epochs_, at::kLong)}};
}

void ForgettingHistory::load_state(std::span<const NamedTensor> state, int rank) {
  const at::Tensor epochs = at::zeros({1}, at::kLong);
  const std::vector<NamedTensor> mine{{"forgetting.counts", counts_},
                                      {"forgetting.learned", learned_},
                                      {"forgetting.this_epoch", this_epoch_},
                                      {"forgetting.epochs", epochs}};
  load_tensors(mine, state, "the history of forgetting");
  if (rank != 0) this_epoch_.zero_();
  epochs_ = epochs.item<std::int64_t>();
}

}  // namespace sage
