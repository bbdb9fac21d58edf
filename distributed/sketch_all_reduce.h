// An all-reduce for sketches: every rank puts in a sketch and gets the merged sketch of all, at the bandwidth of one
// all-reduce of its rows. MPI and NCCL can only sum; merging two sketches needs their joint Gram matrix. Recursive
// halving and doubling (Thakur, Rabenseifner, Gropp: "Optimization of Collective Communication Operations in MPICH",
// 2005) gives every rank some columns of all rows, so that only the small Gram block is summed.
#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "core/sketch_state.h"
#include "distributed/communicator.h"
#include "distributed/shard_plan.h"

namespace sage {

/// Bytes that this rank sent in an all-reduce.
struct SketchTraffic {
  std::int64_t row_bytes = 0;      ///< rows of sketches: with p' = largest power of two <= P, 2 (1 - 1/p') r D floats,
                                   ///< plus r D for the partner of a rank past p', r D in all for such a rank
  std::int64_t control_bytes = 0;  ///< Gram blocks, rotations, eigenvalues and counts
};

/// ALL ranks. The merge of all ranks' sketches, the same bytes on every rank. Level j merges the sketches of pairs of
/// groups of 2^(j-1) ranks, the lower ranks' rows on top, so that ranks 0 to p' - 1 form a binary tree; the sketch of
/// rank p' + i is first merged behind that of rank i. A rank with nothing to give puts in SketchState::none().
/// Sizes may differ, dimensions and types may not. `traffic` may be null.
SketchState sketch_all_reduce(SketchState local, Communicator& communicator, SketchTraffic* traffic = nullptr);

/// Merges the sketches of shards in the fixed binary tree, as soon as siblings are there: at most log2(shards) + 1
/// pending ones for shards in order.
class ShardTree {
 public:
  /// Does not merge above `top_height`.
  explicit ShardTree(int top_height) : top_height_(top_height) {}

  void insert(TreeNode node, SketchState state);
  /// What cannot be merged further yet, in no particular order of height, by node.
  const std::map<TreeNode, SketchState>& nodes() const { return nodes_; }
  std::map<TreeNode, SketchState> take() { return std::move(nodes_); }

 private:
  int top_height_;
  std::map<TreeNode, SketchState> nodes_;
};

/// ALL ranks. `local` holds the merged shards of this rank as plan.nodes_of(rank) says. Sends every node to its home,
/// which goes on merging as the tree says, then all-reduces over the homes. `none` is a sketch of nothing with the rule
/// that all ranks share. Where the number of ranks is a power of two and there are enough shards, nothing moves in the
/// first step.
SketchState sketch_all_reduce(ShardTree local, const ShardPlan& plan, const SketchState& none,
                              Communicator& communicator, SketchTraffic* traffic = nullptr);

}  // namespace sage
