#include <ATen/ops/zeros_like.h>

#include "selection/group_selection.h"
#include "selection/methods.h"
#include "selection/shared_rows.h"

namespace sage {
namespace {

/// With x = h less the mean: the next is the argmin of ||sum of chosen x + x_i||^2, that is of 2 <sum, x_i> +
/// ||x_i||^2.
std::vector<Pick> follow_the_mean(const GroupTask& task) {
  const at::Tensor mean =
      sum_of_rows(task.points.features, task.communicator) / static_cast<double>(task.group.members.size());
  SharedRows points(task.points, task.points.features - mean, task.communicator);
  const auto count = static_cast<std::size_t>(points.count());
  std::vector<double> squares(count), products(count), wanted(count);
  squared_distances(points.rows(), at::zeros_like(mean), squares);
  const at::Tensor sum = at::zeros_like(mean);
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < task.group.budget) {
    dot_products(points.rows(), sum, products);
    for (std::size_t i = 0; i < count; ++i) wanted[i] = -(2.0 * products[i] + squares[i]);
    const SharedRows::Found found = points.take_best(wanted);
    sum.add_(found.row);
    picks.push_back({found.position});
  }
  return picks;
}

}  // namespace

SelectionResult select_herding(const SelectionRequest& request) {
  return select_in_groups(request, {.name = "herding", .columns = {.features = true}, .choose = follow_the_mean});
}

}  // namespace sage
