// How a stream of examples is cut into logical shards, which rank sketches which, and where partial results meet. Pure
// planning: no communication, the same on every rank.
//
// A merged sketch depends on how the stream was cut. So the cut depends on the number of examples and the sketch size
// alone, and shards are merged in a fixed binary tree keyed by shard number: any number of ranks computes the same
// sketch up to rounding.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace sage {

/// A complete subtree of the binary tree over shards: shards index * 2^height to (index + 1) * 2^height - 1.
struct TreeNode {
  int height = 0;
  std::int64_t index = 0;
  std::int64_t first_shard() const { return index << height; }
  TreeNode parent() const { return {height + 1, index / 2}; }
  TreeNode sibling() const { return {height, index ^ 1}; }
  auto operator<=>(const TreeNode&) const = default;
};

class ShardPlan {
 public:
  std::int64_t example_count() const { return examples_; }
  std::int64_t shard_count() const { return shards_; }  ///< a power of two
  int rank_count() const { return ranks_; }
  /// Ranks 0 to home_count() - 1 are home of one subtree of equal height each: the largest power of two that neither
  /// ranks nor shards fall short of.
  int home_count() const { return homes_; }
  int home_height() const;

  /// Positions (in the ascending list of candidate ids) of a shard: [first, last).
  std::pair<std::int64_t, std::int64_t> positions(std::int64_t shard) const;
  /// Shards that `rank` sketches: [first, last), a balanced contiguous run, in rank order.
  std::pair<std::int64_t, std::int64_t> shards_of(int rank) const;
  /// Positions of all shards of `rank`: [first, last).
  std::pair<std::int64_t, std::int64_t> positions_of(int rank) const;
  /// The most positions that any rank has.
  std::int64_t most_positions() const;

  /// The maximal complete subtrees of a rank's run, none above home_height(), in shard order.
  std::vector<TreeNode> nodes_of(int rank) const;
  int home_of(const TreeNode& node) const;

 private:
  friend ShardPlan plan_shards(std::int64_t, std::int64_t, std::int64_t, int);
  std::int64_t examples_ = 0, shards_ = 1;
  int ranks_ = 1, homes_ = 1;
};

/// The plan for `examples` candidates, sketches of `size` rows (for an `auto` size: the largest) and `ranks` ranks.
/// `requested` shards, or 0: the largest power of two up to min(64, examples / (4 size)), at least 1. Throws
/// ConfigError if `requested` is not a power of two.
ShardPlan plan_shards(std::int64_t examples, std::int64_t size, std::int64_t requested, int ranks);

}  // namespace sage
