#include "training/crest/loss_watch.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "training/checkpoint.h"

namespace sage {
namespace {

constexpr std::uint8_t never_observed = 2;

}  // namespace

LossWatch::LossWatch(std::int64_t examples)
    : observed_(static_cast<std::size_t>(examples), 0),
      events_(observed_),
      transitions_(observed_),
      largest_loss_(observed_.size(), 0.0F),
      last_(observed_.size(), never_observed) {}

void LossWatch::observe(std::span<const std::int64_t> ids, const ExampleOutputs& outputs) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<std::size_t>(ids[i]);
    const bool right = outputs.right[i] != 0;
    if (last_[id] != never_observed) {
      ++transitions_[id];
      events_[id] += last_[id] == 1 && !right;
    }
    last_[id] = right ? 1 : 0;
    largest_loss_[id] = observed_[id] == 0 ? outputs.losses[i] : std::max(largest_loss_[id], outputs.losses[i]);
    ++observed_[id];
  }
}

std::vector<std::int64_t> LossWatch::learned(double loss) const {
  std::vector<std::int64_t> ids;
  for (std::size_t id = 0; id < observed_.size(); ++id) {
    if (observed_[id] > 0 && static_cast<double>(largest_loss_[id]) <= loss) {
      ids.push_back(static_cast<std::int64_t>(id));
    }
  }
  std::stable_sort(ids.begin(), ids.end(), [&](std::int64_t a, std::int64_t b) {
    return largest_loss_[static_cast<std::size_t>(a)] < largest_loss_[static_cast<std::size_t>(b)];
  });
  return ids;
}

void LossWatch::start_anew() {
  std::fill(observed_.begin(), observed_.end(), 0);
  std::fill(largest_loss_.begin(), largest_loss_.end(), 0.0F);
}

std::optional<double> LossWatch::forgettability(std::span<const std::int64_t> ids) const {
  double sum = 0.0;
  std::int64_t count = 0;
  for (const std::int64_t id : ids) {
    const auto at = static_cast<std::size_t>(id);
    if (transitions_[at] == 0) continue;
    sum += static_cast<double>(events_[at]) / static_cast<double>(transitions_[at]);
    ++count;
  }
  if (count == 0) return {};
  return sum / static_cast<double>(count);
}

std::vector<NamedTensor> LossWatch::views() {
  const auto size = static_cast<std::int64_t>(observed_.size());
  return {{"watch.observed", at::from_blob(observed_.data(), {size}, at::kInt)},
          {"watch.events", at::from_blob(events_.data(), {size}, at::kInt)},
          {"watch.transitions", at::from_blob(transitions_.data(), {size}, at::kInt)},
          {"watch.largest_loss", at::from_blob(largest_loss_.data(), {size}, at::kFloat)},
          {"watch.last", at::from_blob(last_.data(), {size}, at::kByte)}};
}

std::vector<NamedTensor> LossWatch::state() const {
  LossWatch copy = *this;
  std::vector<NamedTensor> state;
  for (const auto& [name, view] : copy.views()) state.push_back({name, view.clone()});
  return state;
}

void LossWatch::load_state(std::span<const NamedTensor> state) {
  load_tensors(views(), state, "what crest has observed");
}

}  // namespace sage
