#include "selection/random_subset.h"

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/random.h"
#include "selection/quota.h"

namespace sage {

std::vector<std::int64_t> draw_balanced(std::span<const std::int64_t> labels, std::int64_t class_count,
                                        std::span<const std::int64_t> excluded, std::int64_t total, std::uint64_t seed,
                                        std::string_view name, std::uint64_t round) {
  const std::vector<std::vector<std::int64_t>> members = members_of_classes(labels, class_count, excluded);
  std::vector<std::int64_t> available;
  for (const auto& positions : members) available.push_back(static_cast<std::int64_t>(positions.size()));
  const std::vector<std::int64_t> quota = class_quota(total, available);

  std::vector<std::int64_t> chosen;
  for (std::size_t c = 0; c < members.size(); ++c) {
    const RandomStream stream(seed, name, round, static_cast<std::uint32_t>(c));
    const std::vector<std::int64_t> order = random_permutation(available[c], stream);
    for (std::int64_t i = 0; i < quota[c]; ++i) {
      chosen.push_back(members[c][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
    }
  }
  require(static_cast<std::int64_t>(chosen.size()) == total, "draw_balanced: fewer examples than are wanted");
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int64_t> draw_uniform(std::int64_t count, std::int64_t total, std::uint64_t seed,
                                       std::string_view name, std::uint64_t round) {
  require(total <= count, "draw_uniform: fewer examples than are wanted");
  std::vector<std::int64_t> chosen = random_permutation(count, RandomStream(seed, name, round));
  chosen.resize(static_cast<std::size_t>(total));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

SelectionResult select_random(const SelectionRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  const auto count = static_cast<std::int64_t>(request.ids.size());
  const std::int64_t total = subset_size(request.config.fraction, count);
  const std::vector<std::int64_t> chosen =
      request.config.per_class
          ? draw_balanced(request.labels, request.class_count, {}, total, request.seed, "random subset", request.round)
          : draw_uniform(count, total, request.seed, "random subset", request.round);
  SelectionResult result;
  result.method = "random";
  for (std::int64_t position : chosen) result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  describe_classes(request, result);
  result.seconds.choose = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

SelectionResult select_full(const SelectionRequest& request) {
  SelectionResult result;
  result.method = "full";
  result.kept.assign(request.ids.begin(), request.ids.end());
  describe_classes(request, result);
  return result;
}

}  // namespace sage
