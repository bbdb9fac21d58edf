#include "selection/facility_location.h"
#include "selection/group_selection.h"
#include "selection/kernels.h"
#include "selection/methods.h"

namespace sage {
namespace {

std::vector<Pick> stand_for_all(const GroupTask& task) {
  const Points& points = task.points;
  const at::Tensor similarity = task.request.config.craig.features == "gradient"
                                    ? gradient_similarity(points.features, points.residuals)
                                    : similarity_of(points.residuals);
  const FacilityLocationChoice choice = lazy_greedy(similarity, task.group.budget);
  std::vector<Pick> picks;
  for (std::size_t i = 0; i < choice.chosen.size(); ++i) {
    picks.push_back(
        {points.positions[static_cast<std::size_t>(choice.chosen[i])], static_cast<double>(choice.cluster[i])});
  }
  return picks;
}

}  // namespace

SelectionResult select_craig(const SelectionRequest& request) {
  const bool by_gradient = request.config.craig.features == "gradient";
  return select_in_groups(request, {.name = "craig",
                                    .columns = {.features = by_gradient, .residuals = true},
                                    .weighs = true,
                                    .largest_part = largest_kernel(request.config),
                                    .choose = stand_for_all});
}

}  // namespace sage
