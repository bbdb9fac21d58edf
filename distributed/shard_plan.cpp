#include "distributed/shard_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "core/error.h"

namespace sage {
namespace {

std::int64_t floor_to_power_of_two(std::int64_t value) {
  return static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(std::max<std::int64_t>(value, 1))));
}

int log2_of(std::int64_t power_of_two) { return std::countr_zero(static_cast<std::uint64_t>(power_of_two)); }

}  // namespace

int ShardPlan::home_height() const { return log2_of(shards_ / homes_); }

std::pair<std::int64_t, std::int64_t> ShardPlan::positions(std::int64_t shard) const {
  return {shard * examples_ / shards_, (shard + 1) * examples_ / shards_};
}

std::pair<std::int64_t, std::int64_t> ShardPlan::shards_of(int rank) const {
  if (shards_ <= ranks_) return {std::min<std::int64_t>(rank, shards_), std::min<std::int64_t>(rank + 1, shards_)};
  return {rank * shards_ / ranks_, (rank + 1) * shards_ / ranks_};
}

std::pair<std::int64_t, std::int64_t> ShardPlan::positions_of(int rank) const {
  const auto [first, last] = shards_of(rank);
  if (first == last) return {positions(first - 1).second, positions(first - 1).second};
  return {positions(first).first, positions(last - 1).second};
}

std::int64_t ShardPlan::most_positions() const {
  std::int64_t most = 0;
  for (int rank = 0; rank < ranks_; ++rank) {
    const auto [first, last] = positions_of(rank);
    most = std::max(most, last - first);
  }
  return most;
}

std::vector<TreeNode> ShardPlan::nodes_of(int rank) const {
  auto [first, last] = shards_of(rank);
  std::vector<TreeNode> nodes;
  while (first < last) {
    int height = 0;
    while (height < home_height() && (first & ((std::int64_t{2} << height) - 1)) == 0 &&
           first + (std::int64_t{2} << height) <= last) {
      ++height;
    }
    nodes.push_back({height, first >> height});
    first += std::int64_t{1} << height;
  }
  return nodes;
}

int ShardPlan::home_of(const TreeNode& node) const { return static_cast<int>(node.first_shard() >> home_height()); }

ShardPlan plan_shards(std::int64_t examples, std::int64_t size, std::int64_t requested, int ranks) {
  require(examples >= 0 && size >= 1 && ranks >= 1, "plan_shards: counts must be positive");
  if (requested < 0 || (requested > 0 && !std::has_single_bit(static_cast<std::uint64_t>(requested)))) {
    throw ConfigError(
        fmt::format("selection.shards must be a power of two, or 0 for a number found from the data "
                    "(it is {})",
                    requested));
  }
  ShardPlan plan;
  plan.examples_ = examples;
  plan.shards_ = requested > 0 ? requested : floor_to_power_of_two(std::min<std::int64_t>(64, examples / (4 * size)));
  plan.ranks_ = ranks;
  plan.homes_ = static_cast<int>(std::min(floor_to_power_of_two(ranks), plan.shards_));
  return plan;
}

}  // namespace sage
