#include <algorithm>
#include <limits>

#include "selection/group_selection.h"
#include "selection/methods.h"
#include "selection/shared_rows.h"

namespace sage {
namespace {

std::vector<Pick> farthest_first(const GroupTask& task) {
  SharedRows points(task.points, task.points.features, task.communicator);
  const auto count = static_cast<std::size_t>(points.count());
  const at::Tensor mean =
      sum_of_rows(points.rows(), task.communicator) / static_cast<double>(task.group.members.size());
  std::vector<double> distances(count), nearest(count, std::numeric_limits<double>::infinity()), to_mean(count);
  squared_distances(points.rows(), mean, distances);
  std::transform(distances.begin(), distances.end(), to_mean.begin(), [](double d) { return -d; });
  SharedRows::Found found = points.take_best(to_mean);
  std::vector<Pick> picks{{found.position}};
  while (static_cast<std::int64_t>(picks.size()) < task.group.budget) {
    squared_distances(points.rows(), found.row, distances);
    for (std::size_t i = 0; i < count; ++i) nearest[i] = std::min(nearest[i], distances[i]);
    found = points.take_best(nearest);
    picks.push_back({found.position});
  }
  return picks;
}

}  // namespace

SelectionResult select_k_center(const SelectionRequest& request) {
  return select_in_groups(request, {.name = "diversity", .columns = {.features = true}, .choose = farthest_first});
}

}  // namespace sage
