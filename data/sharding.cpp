#include "data/sharding.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace sage {

Range balanced_range(std::int64_t count, int part, int parts) {
  require(count >= 0 && parts >= 1 && part >= 0 && part < parts, "balanced_range: part out of range");
  const std::int64_t shorter = count / parts, longer_parts = count % parts;
  const std::int64_t begin = part * shorter + std::min<std::int64_t>(part, longer_parts);
  return {begin, begin + shorter + (part < longer_parts ? 1 : 0)};
}

EpochPlan::EpochPlan(std::span<const std::int64_t> ids, std::int64_t batch_size, int rank, int ranks,
                     std::uint64_t seed, std::int64_t epoch)
    : batch_size_(batch_size), rank_(rank), ranks_(ranks), seed_(seed), epoch_(epoch) {
  require(batch_size >= 1, "EpochPlan: the batch size must be at least 1");
  require(ranks >= 1 && rank >= 0 && rank < ranks, "EpochPlan: rank out of range");
  order_.reserve(ids.size());
  const auto permutation = random_permutation(static_cast<std::int64_t>(ids.size()),
                                              RandomStream(seed, "shuffle", static_cast<std::uint64_t>(epoch)));
  for (const std::int64_t position : permutation) order_.push_back(ids[static_cast<std::size_t>(position)]);
}

void EpochPlan::skip(std::int64_t examples) {
  const auto size = static_cast<std::int64_t>(order_.size());
  require(examples >= 0 && examples <= size && (examples % batch_size_ == 0 || examples == size),
          "EpochPlan: an epoch goes on between two batches");
  order_.erase(order_.begin(), order_.begin() + examples);
  skipped_ += examples;
}

std::int64_t EpochPlan::steps() const {
  return (static_cast<std::int64_t>(order_.size()) + batch_size_ - 1) / batch_size_;
}

std::span<const std::int64_t> EpochPlan::global_batch(std::int64_t step) const {
  require(step >= 0 && step < steps(), "EpochPlan: step out of range");
  const std::int64_t begin = step * batch_size_;
  const std::int64_t count = std::min(batch_size_, static_cast<std::int64_t>(order_.size()) - begin);
  return order().subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
}

Range EpochPlan::local_range(std::int64_t step) const {
  return balanced_range(static_cast<std::int64_t>(global_batch(step).size()), rank_, ranks_);
}

std::span<const std::int64_t> EpochPlan::local_batch(std::int64_t step) const {
  const Range range = local_range(step);
  return global_batch(step).subspan(static_cast<std::size_t>(range.begin), static_cast<std::size_t>(range.size()));
}

}  // namespace sage
