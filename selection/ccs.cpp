#include <algorithm>
#include <cmath>

#include "core/random.h"
#include "core/stopwatch.h"
#include "selection/difficulty.h"
#include "selection/groups.h"
#include "selection/methods.h"
#include "selection/quota.h"

namespace sage {
namespace {

/// The bin of each of `scores` (ascending): `strata` of equal width between the lowest and the highest.
std::vector<std::int64_t> bins_of(const std::vector<float>& scores, std::int64_t strata) {
  const double low = scores.front(), width = (static_cast<double>(scores.back()) - low) / static_cast<double>(strata);
  std::vector<std::int64_t> bins;
  for (const float score : scores) {
    const double bin = width > 0.0 ? std::floor((static_cast<double>(score) - low) / width) : 0.0;
    bins.push_back(std::min(strata - 1, static_cast<std::int64_t>(bin)));
  }
  return bins;
}

/// Positions chosen in one group.
std::vector<std::int64_t> cover(const SelectionRequest& request, const std::vector<float>& scores, const Group& group,
                                std::uint32_t number, bool& was_short) {
  const SelectionConfig::Ccs& config = request.config.ccs;
  std::vector<std::int64_t> members = group.members;
  std::stable_sort(members.begin(), members.end(), [&](std::int64_t a, std::int64_t b) {
    return scores[static_cast<std::size_t>(a)] < scores[static_cast<std::size_t>(b)];
  });
  const auto count = static_cast<std::int64_t>(members.size());
  const auto hardest = static_cast<std::int64_t>(std::floor(config.hardest * static_cast<double>(count) + 0.5));
  was_short = was_short || hardest > count - group.budget;
  members.resize(static_cast<std::size_t>(count - std::min(hardest, count - group.budget)));
  std::vector<float> left;
  for (const std::int64_t member : members) left.push_back(scores[static_cast<std::size_t>(member)]);

  const std::vector<std::int64_t> bins = bins_of(left, config.strata);
  const std::vector<std::int64_t> quota = class_quota(group.budget, count_classes(bins, config.strata));
  // Members in random order: the first of each bin are drawn.
  std::vector<std::int64_t> taken(quota.size(), 0), chosen;
  for (const std::int64_t place : random_permutation(static_cast<std::int64_t>(members.size()),
                                                     RandomStream(request.seed, "ccs", request.round, number))) {
    const auto bin = static_cast<std::size_t>(bins[static_cast<std::size_t>(place)]);
    if (taken[bin] == quota[bin]) continue;
    ++taken[bin];
    chosen.push_back(members[static_cast<std::size_t>(place)]);
  }
  return chosen;
}

}  // namespace

SelectionResult select_ccs(const SelectionRequest& request) {
  SelectionResult result;
  result.method = "ccs";
  result.scoring = request.config.ccs.score;
  result.scores = difficulty_of(request, request.config.ccs.score, result);
  const SecondsAdder watch(result.seconds.choose);
  const auto count = static_cast<std::int64_t>(request.ids.size());
  const std::int64_t total = subset_size(request.config.fraction, count);
  const std::vector<Group> groups = request.config.per_class
                                        ? group_by_class(request.labels, request.class_count, total)
                                        : group_as_one(count, total);
  bool was_short = false;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].budget == 0) continue;
    for (const std::int64_t position :
         cover(request, result.scores, groups[g], static_cast<std::uint32_t>(g), was_short)) {
      result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
    }
  }
  if (was_short) {
    result.warnings.emplace_back(
        "selection.ccs.hardest leaves fewer examples than selection.fraction asks for: less is dropped");
  }
  std::sort(result.kept.begin(), result.kept.end());
  describe_classes(request, result);
  return result;
}

}  // namespace sage
