#include "training/crest/random_sets.h"

#include <algorithm>

#include "core/error.h"

namespace sage {

RemainingExamples::RemainingExamples(const Experiment& experiment, std::int64_t of_each_class, std::int64_t least)
    : labels_(experiment.labels),
      of_each_class_(of_each_class),
      least_(least),
      size_(static_cast<std::int64_t>(experiment.candidates.size())),
      members_(static_cast<std::size_t>(experiment.dataset.class_count)) {
  for (const std::int64_t id : experiment.candidates) {
    members_[static_cast<std::size_t>(labels_[static_cast<std::size_t>(id)])].push_back(id);
  }
  for (const auto& members : members_) {
    require(static_cast<std::int64_t>(members.size()) >= of_each_class, "a class is smaller than its quota");
  }
}

std::vector<std::int64_t> RemainingExamples::draw(RandomStream stream) const {
  std::vector<std::int64_t> drawn;
  drawn.reserve(members_.size() * static_cast<std::size_t>(of_each_class_));
  for (std::vector<std::int64_t> members : members_) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(of_each_class_); ++i) {
      std::swap(members[i], members[i + stream.below(members.size() - i)]);
      drawn.push_back(members[i]);
    }
  }
  return drawn;
}

std::vector<std::int64_t> RemainingExamples::exclude(std::span<const std::int64_t> ids) {
  std::vector<std::int64_t> out;
  for (const std::int64_t id : ids) {
    if (size_ <= least_) break;
    auto& members = members_[static_cast<std::size_t>(labels_[static_cast<std::size_t>(id)])];
    const auto found = std::lower_bound(members.begin(), members.end(), id);
    if (found == members.end() || *found != id) continue;
    if (static_cast<std::int64_t>(members.size()) <= of_each_class_) continue;
    members.erase(found);
    --size_;
    out.push_back(id);
  }
  const auto middle = static_cast<std::ptrdiff_t>(excluded_.size());
  excluded_.insert(excluded_.end(), out.begin(), out.end());
  std::sort(excluded_.begin() + middle, excluded_.end());
  std::inplace_merge(excluded_.begin(), excluded_.begin() + middle, excluded_.end());
  return out;
}

}  // namespace sage
