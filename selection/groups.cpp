#include "selection/groups.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "selection/quota.h"

namespace sage {

std::vector<Group> group_by_class(std::span<const std::int64_t> labels, std::int64_t class_count, std::int64_t total) {
  const std::vector<std::int64_t> quota = class_quota(total, count_classes(labels, class_count));
  std::vector<Group> classes(static_cast<std::size_t>(class_count));
  for (std::size_t i = 0; i < labels.size(); ++i) {
    classes[static_cast<std::size_t>(labels[i])].members.push_back(static_cast<std::int64_t>(i));
  }
  std::vector<Group> groups;
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].members.empty()) continue;
    classes[c].budget = quota[c];
    classes[c].label = static_cast<std::int64_t>(c);
    groups.push_back(std::move(classes[c]));
  }
  return groups;
}

std::vector<Group> group_as_one(std::int64_t count, std::int64_t total) {
  Group all;
  all.members.resize(static_cast<std::size_t>(count));
  std::iota(all.members.begin(), all.members.end(), std::int64_t{0});
  all.budget = total;
  return {std::move(all)};
}

std::vector<Group> cut_into_parts(std::vector<Group> groups, std::int64_t most, std::uint64_t seed,
                                  std::uint64_t round) {
  require(most >= 1, "cut_into_parts: a part holds at least one example");
  std::vector<Group> result;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto count = static_cast<std::int64_t>(groups[g].members.size());
    if (count <= most) {
      result.push_back(std::move(groups[g]));
      continue;
    }
    const std::int64_t part_count = (count + most - 1) / most;
    const std::vector<std::int64_t> order =
        random_permutation(count, RandomStream(seed, "parts", round, static_cast<std::uint32_t>(g)));
    std::vector<Group> parts(static_cast<std::size_t>(part_count));
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t member = groups[g].members[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      parts[static_cast<std::size_t>(i % part_count)].members.push_back(member);
    }
    std::vector<std::int64_t> sizes;
    for (Group& part : parts) {
      std::sort(part.members.begin(), part.members.end());
      part.label = groups[g].label;
      sizes.push_back(static_cast<std::int64_t>(part.members.size()));
    }
    const std::vector<std::int64_t> budgets = split_by_weight(groups[g].budget, sizes, sizes);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      parts[p].budget = budgets[p];
      result.push_back(std::move(parts[p]));
    }
  }
  return result;
}

std::vector<int> deal_out(const std::vector<Group>& groups, int ranks) {
  std::vector<std::size_t> order(groups.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return groups[a].members.size() > groups[b].members.size(); });
  std::vector<std::size_t> load(static_cast<std::size_t>(ranks), 0);
  std::vector<int> owner(groups.size(), 0);
  for (std::size_t g : order) {
    const auto least = std::min_element(load.begin(), load.end());
    owner[g] = static_cast<int>(least - load.begin());
    *least += groups[g].members.size();
  }
  return owner;
}

}  // namespace sage
