#include "selection/facility_location.h"
#include "selection/group_selection.h"
#include "selection/kernels.h"
#include "selection/last_layer.h"
#include "selection/methods.h"
#include "selection/shared_rows.h"

namespace sage {
namespace {

/// Rows whose products are cosines: of h, or of [h, 1] and r, the product of whose cosines is that of the gradients.
struct UnitFactors {
  at::Tensor features, residuals;  // residuals: undefined for the cosine of h
  explicit UnitFactors(const Points& points)
      : features(unit_rows(points.residuals.defined() ? with_one(points.features) : points.features)),
        residuals(points.residuals.defined() ? unit_rows(points.residuals) : at::Tensor()) {}
};

std::vector<Pick> locate_facilities(const GroupTask& task) {
  const UnitFactors unit(task.points);
  const at::Tensor similarity = similarity_by_cosine(unit.features, unit.residuals);
  std::vector<Pick> picks;
  for (const std::int64_t chosen : lazy_greedy(similarity, task.group.budget).chosen) {
    picks.push_back({task.points.positions[static_cast<std::size_t>(chosen)]});
  }
  return picks;
}

/// The gain of j is sum_i s_ij - lambda (2 sum over chosen l of s_lj + s_jj). It needs no matrix: the first sum follows
/// from the sum of unit vectors, the second grows with each choice by one row.
std::vector<Pick> cut_graph(const GroupTask& task) {
  const UnitFactors unit(task.points);
  const bool by_gradient = unit.residuals.defined();
  const std::int64_t width = unit.features.size(1), count = task.points.count();
  SharedRows points(task.points, by_gradient ? joined(unit.features, unit.residuals) : unit.features,
                    task.communicator);
  const auto n = static_cast<std::size_t>(count);
  std::vector<double> to_all(n), by_features(n), by_residuals(n), wanted(n);
  const auto cosines_with = [&](const at::Tensor& row) {  // into by_features
    dot_products(unit.features, row.narrow(0, 0, width), by_features);
    if (!by_gradient) return;
    dot_products(unit.residuals, row.narrow(0, width, unit.residuals.size(1)), by_residuals);
    for (std::size_t i = 0; i < n; ++i) by_features[i] *= by_residuals[i];
  };
  if (by_gradient) {
    correlate(unit.residuals, unit.features, sum_of_gradients(unit.residuals, unit.features, task.communicator),
              to_all);
  } else {
    dot_products(unit.features, sum_of_rows(unit.features, task.communicator), to_all);
  }
  const at::Tensor lengths =
      by_gradient ? unit.features.square().sum(1) * unit.residuals.square().sum(1) : unit.features.square().sum(1);
  const double lambda = task.request.config.submodular.graph_cut_lambda;
  const auto members = static_cast<double>(task.group.members.size());
  for (std::size_t i = 0; i < n; ++i) {
    const double own = 0.5 + 0.5 * lengths.const_data_ptr<double>()[i];
    wanted[i] = 0.5 * (members + to_all[i]) - lambda * own;
  }
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < task.group.budget) {
    const SharedRows::Found found = points.take_best(wanted);
    picks.push_back({found.position});
    cosines_with(found.row);
    for (std::size_t i = 0; i < n; ++i) wanted[i] -= 2.0 * lambda * (0.5 + 0.5 * by_features[i]);
  }
  return picks;
}

}  // namespace

SelectionResult select_submodular(const SelectionRequest& request) {
  const SelectionConfig::Submodular& config = request.config.submodular;
  const bool needs_kernel = config.function == "facility_location";
  return select_in_groups(request, {.name = "submodular",
                                    .columns = {.features = true, .residuals = config.features == "gradient"},
                                    .largest_part = needs_kernel ? largest_kernel(request.config) : 0,
                                    .choose = needs_kernel ? locate_facilities : cut_graph});
}

}  // namespace sage
