#include "selection/group_selection.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "core/stopwatch.h"
#include "core/trace.h"
#include "selection/quota.h"

namespace sage {
namespace {

at::Tensor index_of(const std::vector<std::int64_t>& values) {
  return at::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kLong);
}

/// ALL ranks: the rows whose owner this rank is. `owner_of[position]` is a rank, or -1: nobody's.
FactorRows send_to_owners(Communicator& communicator, const ShardPlan& plan, const std::vector<int>& owner_of,
                          FactorRows rows) {
  const int ranks = communicator.size(), self = communicator.rank();
  if (ranks == 1) return rows;
  const std::int64_t width = rows.values.size(1);
  std::vector<std::vector<std::int64_t>> leaving(static_cast<std::size_t>(ranks));  // rows of mine, by owner
  for (std::size_t i = 0; i < rows.positions.size(); ++i) {
    const int owner = owner_of[static_cast<std::size_t>(rows.positions[i])];
    if (owner >= 0) leaving[static_cast<std::size_t>(owner)].push_back(static_cast<std::int64_t>(i));
  }
  FactorRows mine;
  std::vector<at::Tensor> to(static_cast<std::size_t>(ranks)), from(to.size());
  for (int rank = 0; rank < ranks; ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    const auto [first, last] = plan.positions_of(rank);
    std::int64_t coming = 0;
    for (std::int64_t position = first; position < last; ++position) {
      if (owner_of[static_cast<std::size_t>(position)] != self) continue;
      mine.positions.push_back(position);
      ++coming;
    }
    if (rank != self && !leaving[r].empty()) {
      to[r] = rows.values.index_select(0, index_of(leaving[r])).to(communicator.device());
    }
    if (rank != self && coming > 0) {
      from[r] = at::empty({coming, width}, rows.values.options().device(communicator.device()));
    }
  }
  communicator.exchange_all(to, from);
  to.clear();
  // Ranks hold contiguous runs in rank order: one after the other their rows ascend.
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    if (rank == self) parts.push_back(rows.values.index_select(0, index_of(leaving[r])));
    if (from[r].defined()) parts.push_back(from[r].cpu());
  }
  mine.values = at::cat(parts);
  return mine;
}

Points points_of(const FactorRows& rows, const std::vector<std::int64_t>& members, const FactorColumns& columns,
                 std::int64_t feature_count, std::int64_t class_count) {
  Points points;
  std::vector<std::int64_t> index;
  // Both ascend. Members that are elsewhere are passed over.
  auto next = rows.positions.begin();
  for (const std::int64_t member : members) {
    next = std::lower_bound(next, rows.positions.end(), member);
    if (next == rows.positions.end()) break;
    if (*next != member) continue;
    index.push_back(next - rows.positions.begin());
    points.positions.push_back(member);
  }
  const at::Tensor values = rows.values.index_select(0, index_of(index));
  std::int64_t column = 0;
  const auto take = [&](bool wanted, std::int64_t count) {
    if (!wanted) return at::Tensor();
    column += count;
    return values.narrow(1, column - count, count).to(at::kDouble).contiguous();
  };
  points.features = take(columns.features, feature_count);
  points.residuals = take(columns.residuals, class_count);
  points.probabilities = take(columns.probabilities, class_count);
  return points;
}

class GroupSelector {
 public:
  GroupSelector(const SelectionRequest& request, const GroupMethod& method)
      : request_(request), method_(method), communicator_(request.communicator) {
    const auto count = static_cast<std::int64_t>(request.ids.size());
    const std::int64_t total = subset_size(request.config.fraction, count);
    groups_ = request.config.per_class ? group_by_class(request.labels, request.class_count, total)
                                       : group_as_one(count, total);
    if (method.largest_part > 0) {
      groups_ = cut_into_parts(std::move(groups_), method.largest_part, request.seed, request.round);
    }
    is_spread_ = !request.config.per_class && method.largest_part == 0;
    owners_ = deal_out(groups_, communicator_.size());
    if (method.uses_validation) {
      for (std::size_t i = 0; i < request.validation_labels.size(); ++i) {
        const std::int64_t label = request.config.per_class ? request.validation_labels[i] : -1;
        validation_of_[label].push_back(static_cast<std::int64_t>(i));
      }
    }
  }

  SelectionResult run() {
    const std::int64_t bytes_before = communicator_.traffic().bytes_sent;
    FactorRows rows, validation;
    {
      const SecondsAdder watch(result_.seconds.score);
      const trace::Span span("factor pass", trace::keeps_all());
      MethodPasses passes(request_);
      rows = passes.factors(method_.columns);
      non_finite_ = passes.non_finite();
      rows = to_owners(passes.plan(), request_.labels, groups_, std::move(rows));
      if (method_.uses_validation) {
        MethodPasses of_validation = MethodPasses::over_validation(request_);
        validation = of_validation.factors(method_.columns);
        validation = validation_to_owners(of_validation.plan(), std::move(validation));
      }
    }
    std::vector<Pick> picks;
    {
      const SecondsAdder watch(result_.seconds.choose);
      const trace::Span span("choose", trace::keeps_all());
      picks = is_spread_ ? choose(0, rows, validation, communicator_) : choose_of_own_groups(rows, validation);
    }
    finish(std::move(picks));
    share_statistics(request_, non_finite_, bytes_before, result_);
    return std::move(result_);
  }

 private:
  /// ALL ranks.
  FactorRows to_owners(const ShardPlan& plan, std::span<const std::int64_t> labels, const std::vector<Group>& groups,
                       FactorRows rows) {
    if (is_spread_) return rows;
    std::vector<int> owner_of(labels.size(), -1);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (groups[g].budget == 0) continue;
      for (const std::int64_t member : groups[g].members) owner_of[static_cast<std::size_t>(member)] = owners_[g];
    }
    return send_to_owners(communicator_, plan, owner_of, std::move(rows));
  }
  FactorRows validation_to_owners(const ShardPlan& plan, FactorRows rows) {
    std::vector<Group> same(groups_.size());
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      same[g].budget = groups_[g].budget;
      same[g].members = validation_members(groups_[g]);
    }
    return to_owners(plan, request_.validation_labels, same, std::move(rows));
  }

  const std::vector<std::int64_t>& validation_members(const Group& group) const {
    static const std::vector<std::int64_t> none;
    const auto found = validation_of_.find(group.label);
    return found == validation_of_.end() ? none : found->second;
  }

  /// ALL ranks of `communicator`.
  std::vector<Pick> choose(std::size_t g, const FactorRows& rows, const FactorRows& validation,
                           Communicator& communicator) {
    const Group& group = groups_[g];
    const std::int64_t features = request_.source->feature_count(), classes = request_.class_count;
    const Points points = points_of(rows, group.members, method_.columns, features, classes);
    Points held_out;
    if (method_.uses_validation) {
      held_out = points_of(validation, validation_members(group), method_.columns, features, classes);
    }
    std::vector<Pick> picks =
        method_.choose({request_, group, static_cast<std::uint32_t>(g), points, held_out, communicator});
    std::unordered_set<std::int64_t> different;
    for (const Pick& pick : picks) different.insert(pick.position);
    require(static_cast<std::int64_t>(picks.size()) == group.budget && different.size() == picks.size(),
            "a method must choose exactly its budget, nothing twice");
    return picks;
  }

  /// ALL ranks: each chooses in the groups that it owns, then all get to know what the others chose.
  std::vector<Pick> choose_of_own_groups(const FactorRows& rows, const FactorRows& validation) {
    std::vector<Pick> mine;
    communicator_.all_or_none([&] {
      const auto alone = make_single_communicator(at::kCPU);
      for (std::size_t g = 0; g < groups_.size(); ++g) {
        if (owners_[g] != communicator_.rank() || groups_[g].budget == 0) continue;
        const std::vector<Pick> picks = choose(g, rows, validation, *alone);
        mine.insert(mine.end(), picks.begin(), picks.end());
      }
    });
    at::Tensor packed = at::empty({static_cast<std::int64_t>(mine.size()), 2}, at::kDouble);
    double* value = packed.mutable_data_ptr<double>();
    for (const Pick& pick : mine) {
      *value++ = static_cast<double>(pick.position);  // exact far beyond any number of examples
      *value++ = pick.weight;
    }
    const at::Tensor all = communicator_.all_gather_rows(packed.to(communicator_.device())).cpu();
    const double* entry = all.const_data_ptr<double>();
    std::vector<Pick> picks;
    for (std::int64_t i = 0; i < all.size(0); ++i) {
      picks.push_back({static_cast<std::int64_t>(entry[2 * i]), entry[2 * i + 1]});
    }
    return picks;
  }

  /// Methods by gradients use the last layer's.
  void note_scope() {
    const std::vector<std::string>& scope = request_.config.gradient.scope;
    if (!method_.columns.residuals || scope == std::vector<std::string>{"classifier"}) return;
    result_.warnings.push_back(
        fmt::format("selection.gradient.scope is [{}], but {} goes by the gradients of the last layer",
                    fmt::join(scope, ", "), method_.name));
  }

  void finish(std::vector<Pick> picks) {
    std::sort(picks.begin(), picks.end(), [](const Pick& a, const Pick& b) { return a.position < b.position; });
    result_.method = method_.name;
    for (const Pick& pick : picks) {
      result_.kept.push_back(request_.ids[static_cast<std::size_t>(pick.position)]);
      if (method_.weighs) result_.weights.push_back(static_cast<float>(pick.weight));
    }
    describe_classes(request_, result_);
    note_scope();
  }

  const SelectionRequest& request_;
  const GroupMethod& method_;
  Communicator& communicator_;
  std::vector<Group> groups_;
  std::vector<int> owners_;                                          // of each group
  bool is_spread_ = false;                                           // one group, a part of it on every rank
  std::map<std::int64_t, std::vector<std::int64_t>> validation_of_;  // members by label (-1: all)
  std::int64_t non_finite_ = 0;
  SelectionResult result_;
};

}  // namespace

SelectionResult select_in_groups(const SelectionRequest& request, const GroupMethod& method) {
  const at::NoGradGuard no_grad;
  return GroupSelector(request, method).run();
}

}  // namespace sage
