#include "distributed/sketch_all_reduce.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <bit>

#include "core/error.h"
#include "core/linear_algebra.h"
#include "distributed/sketch_wire.h"

namespace sage {
namespace {

using Kind = SketchWire::Kind;

/// Columns [begin, end) of a sketch.
struct Columns {
  std::int64_t begin, end;
  std::int64_t count() const { return end - begin; }
  Columns left() const { return {begin, begin + (count() + 1) / 2}; }
  Columns right() const { return {begin + (count() + 1) / 2, end}; }
};

/// One rank's part in the algorithm. Every member function is called by ALL ranks; `active_` ranks (those below p') do
/// the work, the others keep step.
class SketchAllReduce {
 public:
  SketchAllReduce(SketchState local, Communicator& communicator, SketchTraffic& traffic)
      : rank_(communicator.rank()),
        ranks_(communicator.size()),
        tree_ranks_(static_cast<int>(std::bit_floor(static_cast<unsigned>(communicator.size())))),
        levels_(std::countr_zero(static_cast<unsigned>(tree_ranks_))),
        active_(rank_ < tree_ranks_),
        wire_(communicator, traffic),
        mine_(std::move(local)),
        columns_{0, mine_.rule.dimension} {}

  SketchState run() {
    const int extra = active_ ? (rank_ + tree_ranks_ < ranks_ ? rank_ + tree_ranks_ : -1) : rank_ - tree_ranks_;
    if (tree_ranks_ < ranks_) fold_in(extra);
    for (int level = 1; level <= levels_; ++level) {
      halves_.push_back(columns_);
      merge_level(level);
    }
    gather_columns();
    if (tree_ranks_ < ranks_) hand_out(extra);
    return std::move(mine_);
  }

 private:
  /// Sends the numbers and eigenvalues of `mine_` (if `sends`), returns those of the partner (if `receives`), with room
  /// for `columns` of its rows.
  SketchState exchange_numbers(int partner, bool sends, bool receives, std::int64_t columns) {
    at::Tensor numbers = at::zeros({kSketchNumbers}, at::kDouble);
    wire_.exchange(partner, Kind::control, sends ? sketch_numbers(mine_) : at::Tensor(),
                   receives ? numbers : at::Tensor());
    SketchState theirs;
    std::int64_t rows = 0;
    if (partner >= 0 && receives) rows = read_sketch_numbers(numbers, theirs);
    theirs.eigenvalues = at::empty({rows}, at::kDouble);
    theirs.rows = at::empty({rows, columns}, mine_.rows.options());
    wire_.exchange(partner, Kind::control, sends ? mine_.eigenvalues : at::Tensor(), theirs.eigenvalues);
    return theirs;
  }

  /// Ranks past p' give their sketch to their partner, which puts its rows behind its own.
  void fold_in(int partner) {
    const bool receives = active_;
    SketchState theirs = exchange_numbers(partner, !receives, receives, mine_.rule.dimension);
    wire_.exchange(partner, Kind::rows, receives ? at::Tensor() : mine_.rows, theirs.rows);
    if (receives && partner >= 0) mine_ = merge_states(mine_, theirs);
  }

  /// The result goes to the ranks past p'.
  void hand_out(int partner) {
    const bool receives = !active_;
    SketchState theirs = exchange_numbers(partner, !receives, receives, mine_.rule.dimension);
    wire_.exchange(partner, Kind::rows, receives ? at::Tensor() : mine_.rows, theirs.rows);
    if (receives) mine_ = std::move(theirs);
  }

  /// Merges the sketches of two groups of 2^(level - 1) ranks. This rank and its partner hold the same columns of them:
  /// the lower one goes on with the left half of these columns of both sketches, the other one with the right half.
  void merge_level(int level) {
    const int bit = 1 << (level - 1);
    const int partner = active_ ? rank_ ^ bit : -1;
    const bool lower = (rank_ & bit) == 0;
    const Columns keep = lower ? columns_.left() : columns_.right();
    const Columns give = lower ? columns_.right() : columns_.left();
    SketchState theirs = exchange_numbers(partner, true, true, keep.count());
    const auto part = [&](const Columns& half) {
      return mine_.rows.narrow(1, half.begin - columns_.begin, half.count());
    };
    if (active_) {
      wire_.exchange(partner, Kind::rows, part(give), theirs.rows);
      mine_.rows = part(keep);
      columns_ = keep;
    } else {
      wire_.exchange(-1, Kind::rows, {}, {});
    }

    const SketchState& low = lower ? mine_ : theirs;
    const SketchState& high = lower ? theirs : mine_;
    const bool both = active_ && low.row_count() > 0 && high.row_count() > 0;
    at::Tensor cross;
    if (both) cross = cross_gram(low.rows, high.rows, merged_rule(low.rule, high.rule).lossless());
    sum_over_group(cross, level);

    SketchState merged;
    ShrinkDecision decision;
    if (active_) merged = merged_numbers(low, high);
    if (both && leads(level)) {
      decision = decompose(merged_gram(low.eigenvalues, high.eigenvalues, cross), merged.rule, low.rows.scalar_type(),
                           merged.error_bound, merged.squared_norm);
    }
    broadcast_in_group(decision, both, both ? low.row_count() + high.row_count() : 0, level);
    if (!active_) return;
    if (both) {
      charge_shrink(merged, decision);
      merged.eigenvalues = decision.eigenvalues;
      const std::int64_t kept = decision.rotation.size(0);
      if (level == levels_) {  // straight to where gather_columns() wants them
        whole_ = at::empty({kept, mine_.rule.dimension}, mine_.rows.options());
        merged.rows = whole_.narrow(1, columns_.begin, columns_.count());
      } else {
        merged.rows = at::empty({kept, columns_.count()}, mine_.rows.options());
      }
      rotate_rows(decision.rotation, std::array{low.rows, high.rows}, merged.rows);
    } else {  // the identity
      const SketchState& only = low.row_count() == 0 ? high : low;
      merged.eigenvalues = only.eigenvalues;
      merged.rows = only.rows;
    }
    mine_ = std::move(merged);
  }

  bool leads(int level) const { return (rank_ & ((1 << level) - 1)) == 0; }

  /// Butterfly: after step i all ranks that differ in bits 0..i hold the same sum. a + b = b + a in floating point, so
  /// it is the same to the last bit on all of them. Groups with an undefined `sum` have nothing to add.
  void sum_over_group(at::Tensor& sum, int level) {
    for (int step = 0; step < level; ++step) {
      if (!sum.defined()) {
        wire_.exchange(-1, Kind::control, {}, {});
        continue;
      }
      at::Tensor other = at::empty_like(sum);
      wire_.exchange(rank_ ^ (1 << step), Kind::control, sum, other);
      sum = sum + other;
    }
  }

  /// The leader's decision to its group: eigenvectors computed twice could differ where eigenvalues nearly agree, and
  /// ranks would mix bases without noticing.
  void broadcast_in_group(ShrinkDecision& decision, bool both, std::int64_t rows, int level) {
    at::Tensor head = at::zeros({3}, at::kDouble);
    if (both && leads(level)) {
      head = at::tensor(
          {static_cast<double>(decision.eigenvalues.size(0)), static_cast<double>(decision.size), decision.charge},
          at::kDouble);
    }
    binomial(head, both, level);
    const auto kept = static_cast<std::int64_t>(head.const_data_ptr<double>()[0]);
    at::Tensor body = at::zeros({kept, rows + 1}, at::kDouble);
    if (both && leads(level)) body = at::cat({decision.rotation, decision.eigenvalues.unsqueeze(1)}, 1);
    binomial(body, both, level);
    decision.rotation = body.narrow(1, 0, rows);
    decision.eigenvalues = body.select(1, rows).contiguous();
    decision.size = static_cast<std::int64_t>(head.const_data_ptr<double>()[1]);
    decision.charge = head.const_data_ptr<double>()[2];
  }

  void binomial(at::Tensor& tensor, bool takes_part, int level) {
    const int place = rank_ & ((1 << level) - 1);
    for (int stride = 1 << (level - 1); stride > 0; stride /= 2) {
      const bool sends = takes_part && place % (2 * stride) == 0;
      const bool receives = takes_part && place % (2 * stride) == stride;
      wire_.exchange(sends      ? rank_ + stride
                     : receives ? rank_ - stride
                                : -1,
                     Kind::control, sends ? tensor : at::Tensor(), receives ? tensor : at::Tensor());
    }
  }

  /// The halving backwards: partners give each other what they hold, until all hold all columns.
  void gather_columns() {
    if (active_ && levels_ > 0) {
      if (!whole_.defined()) {  // the last level had nothing to rotate
        whole_ = at::empty({mine_.row_count(), mine_.rule.dimension}, mine_.rows.options());
        whole_.narrow(1, columns_.begin, columns_.count()).copy_(mine_.rows);
      }
      mine_.rows = whole_;
    }
    for (int level = levels_; level >= 1; --level) {
      if (!active_) {
        wire_.exchange(-1, Kind::rows, {}, {});
        continue;
      }
      const Columns parent = halves_[static_cast<std::size_t>(level - 1)];
      const bool lower = (rank_ & (1 << (level - 1))) == 0;
      const Columns other = lower ? parent.right() : parent.left();
      wire_.exchange(rank_ ^ (1 << (level - 1)), Kind::rows, whole_.narrow(1, columns_.begin, columns_.count()),
                     whole_.narrow(1, other.begin, other.count()));
      columns_ = parent;
    }
  }

  const int rank_, ranks_, tree_ranks_, levels_;
  const bool active_;
  SketchWire wire_;
  SketchState mine_;  // while halving: only columns_ of the rows
  Columns columns_;
  at::Tensor whole_;             // room for all columns, once the last level has rotated its own into it
  std::vector<Columns> halves_;  // columns_ before each level
};

}  // namespace

SketchState sketch_all_reduce(SketchState local, Communicator& communicator, SketchTraffic* traffic) {
  const at::NoGradGuard no_grad;
  require(local.rows.defined() && local.rows.size(1) == local.rule.dimension,
          "sketch_all_reduce: a rank without rows puts in SketchState::none()");
  SketchTraffic uncounted;
  return SketchAllReduce(std::move(local), communicator, traffic != nullptr ? *traffic : uncounted).run();
}

void ShardTree::insert(TreeNode node, SketchState state) {
  while (node.height < top_height_) {
    const auto sibling = nodes_.find(node.sibling());
    if (sibling == nodes_.end()) break;
    const bool left = node.index % 2 == 0;
    state = left ? merge_states(state, sibling->second) : merge_states(sibling->second, state);
    nodes_.erase(sibling);
    node = node.parent();
  }
  require(nodes_.emplace(node, std::move(state)).second, "ShardTree: a shard was inserted twice");
}

SketchState sketch_all_reduce(ShardTree local, const ShardPlan& plan, const SketchState& none,
                              Communicator& communicator, SketchTraffic* traffic) {
  const at::NoGradGuard no_grad;
  SketchTraffic uncounted;
  SketchTraffic& counted = traffic != nullptr ? *traffic : uncounted;
  SketchWire wire(communicator, counted);
  const int rank = communicator.rank(), ranks = communicator.size();
  require(plan.rank_count() == ranks, "sketch_all_reduce: the plan is for another number of ranks");

  // Everyone knows from the plan which nodes travel from where to where; nodes between the same two ranks take turns.
  std::vector<std::vector<TreeNode>> leaving(static_cast<std::size_t>(ranks)),
      arriving(static_cast<std::size_t>(ranks));
  std::size_t turns = 0;
  for (int from = 0; from < ranks; ++from) {
    std::vector<std::size_t> count(static_cast<std::size_t>(ranks), 0);
    for (const TreeNode& node : plan.nodes_of(from)) {
      const int home = plan.home_of(node);
      if (home == from) continue;
      turns = std::max(turns, ++count[static_cast<std::size_t>(home)]);
      if (from == rank) leaving[static_cast<std::size_t>(home)].push_back(node);
      if (home == rank) arriving[static_cast<std::size_t>(from)].push_back(node);
    }
  }

  auto nodes = local.take();
  ShardTree tree(plan.home_height());
  for (auto& [node, state] : nodes) {
    if (plan.home_of(node) == rank) tree.insert(node, std::move(state));
  }
  for (std::size_t turn = 0; turn < turns; ++turn) {
    std::vector<SketchState> received(static_cast<std::size_t>(ranks));
    std::vector<at::Tensor> to(static_cast<std::size_t>(ranks)), from(static_cast<std::size_t>(ranks));
    const auto is_sent = [&](std::size_t r) { return turn < leaving[r].size(); };
    const auto is_received = [&](std::size_t r) { return turn < arriving[r].size(); };
    // ALL ranks, once for each part of a sketch: `part` of what is sent, `room` for what is received.
    const auto exchange_part = [&](Kind kind, const auto& part, const auto& room, const auto& arrived) {
      for (std::size_t r = 0; r < to.size(); ++r) {
        to[r] = is_sent(r) ? wire.outgoing(part(nodes.at(leaving[r][turn]))) : at::Tensor();
        wire.count(kind, to[r]);
        from[r] = is_received(r) ? wire.incoming(room(received[r])) : at::Tensor();
      }
      communicator.exchange_all(to, from);
      for (std::size_t r = 0; r < to.size(); ++r) {
        if (is_received(r)) arrived(received[r], from[r]);
      }
    };
    exchange_part(
        Kind::control, [](const SketchState& state) { return sketch_numbers(state); },
        [](SketchState&) { return at::empty({kSketchNumbers}, at::kDouble); },
        [&](SketchState& state, const at::Tensor& numbers) {
          const std::int64_t rows = read_sketch_numbers(numbers.cpu(), state);
          state.eigenvalues = at::empty({rows}, at::kDouble);
          state.rows = at::empty({rows, state.rule.dimension}, none.rows.options());
        });
    exchange_part(
        Kind::control, [](const SketchState& state) { return state.eigenvalues; },
        [](SketchState& state) { return state.eigenvalues; },
        [](SketchState& state, const at::Tensor& values) {
          if (values.defined()) state.eigenvalues.copy_(values);
        });
    exchange_part(
        Kind::rows, [](const SketchState& state) { return state.rows; }, [](SketchState& state) { return state.rows; },
        [](SketchState& state, const at::Tensor& rows) {
          if (rows.defined()) state.rows.copy_(rows);
        });
    for (std::size_t r = 0; r < to.size(); ++r) {
      if (is_sent(r)) nodes.erase(leaving[r][turn]);
      if (is_received(r)) tree.insert(arriving[r][turn], std::move(received[r]));
    }
  }

  auto mine = tree.take();
  require(mine.size() <= 1, "ShardTree: shards are missing, the tree could not be closed");
  return sketch_all_reduce(mine.empty() ? none : std::move(mine.begin()->second), communicator, traffic);
}

}  // namespace sage
