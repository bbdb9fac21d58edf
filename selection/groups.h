// Candidates in groups that are chosen from apart: the classes, or all as one, or parts of either where a method needs
// a matrix of n x n. Pure planning, the same on every rank.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sage {

struct Group {
  std::vector<std::int64_t> members;  ///< positions among the candidates, ascending
  std::int64_t budget = 0;            ///< examples to choose, at most as many as there are members
  std::int64_t label = -1;            ///< the class; -1: of all classes
};

/// The classes with their quotas of `total` (class_quota), without those that have no members. In the order of classes.
std::vector<Group> group_by_class(std::span<const std::int64_t> labels, std::int64_t class_count, std::int64_t total);
/// All as one.
std::vector<Group> group_as_one(std::int64_t count, std::int64_t total);

/// Groups of more than `most` members are cut into equal parts at random (uniform, by RandomStream(seed, "parts",
/// round, number of the group)); a part's budget is proportional to its size. The others stay as they are.
std::vector<Group> cut_into_parts(std::vector<Group> groups, std::int64_t most, std::uint64_t seed,
                                  std::uint64_t round);

/// The rank that works on each group: the largest first, each to the rank with the fewest members so far (ties to the
/// lower rank).
std::vector<int> deal_out(const std::vector<Group>& groups, int ranks);

}  // namespace sage
