// Every rank keeps its part of the examples held out; their gradient is summed over ranks at each step, C x (F + 1)
// numbers.
#include <ATen/ops/log.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>

#include "core/error.h"
#include "selection/group_selection.h"
#include "selection/last_layer.h"
#include "selection/methods.h"
#include "selection/shared_rows.h"

namespace sage {
namespace {

std::vector<Pick> follow_validation(const GroupTask& task, bool has_validation) {
  // A class without held-out examples follows its own.
  const Points& judges = has_validation ? task.validation : task.points;
  const at::Tensor judge_extended = with_one(judges.features);
  const at::Tensor log_probabilities = at::log(judges.probabilities.clamp_min(1e-300));  // logits up to a constant
  const at::Tensor targets = judges.probabilities - judges.residuals;
  const at::Tensor moved = at::zeros_like(log_probabilities);  // what the chosen would add to the logits, summed

  const at::Tensor extended = with_one(task.points.features);
  SharedRows points(task.points, joined(extended, task.points.residuals), task.communicator);
  const std::int64_t width = extended.size(1), classes = task.points.residuals.size(1);
  std::vector<double> wanted(static_cast<std::size_t>(points.count()));
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < task.group.budget) {
    // Where theta - step x mean of the chosen g leads: logits less step x mean of ([h, 1] . [h_e, 1]) r_e.
    const double step = picks.empty() ? 0.0 : task.request.config.glister.step / static_cast<double>(picks.size());
    const at::Tensor residuals = at::softmax(log_probabilities - moved * step, 1) - targets;
    correlate(task.points.residuals, extended, sum_of_gradients(residuals, judge_extended, task.communicator), wanted);
    const SharedRows::Found found = points.take_best(wanted);
    moved.add_(at::outer(at::mv(judge_extended, found.row.narrow(0, 0, width)), found.row.narrow(0, width, classes)));
    picks.push_back({found.position});
  }
  return picks;
}

}  // namespace

SelectionResult select_glister(const SelectionRequest& request) {
  std::vector<std::int64_t> held_out(static_cast<std::size_t>(request.class_count), 0);
  for (const std::int64_t label : request.validation_labels) ++held_out[static_cast<std::size_t>(label)];
  const auto has_validation = [&](const Group& group) {
    return group.label < 0 || held_out[static_cast<std::size_t>(group.label)] > 0;
  };
  SelectionResult result = select_in_groups(
      request, {.name = "glister",
                .columns = {.features = true, .residuals = true, .probabilities = true},
                .uses_validation = true,
                .choose = [&](const GroupTask& task) { return follow_validation(task, has_validation(task.group)); }});
  std::string without;
  for (std::size_t c = 0; request.config.per_class && c < held_out.size(); ++c) {
    if (held_out[c] == 0) without += (without.empty() ? "" : ", ") + std::to_string(c);
  }
  if (!without.empty()) {
    result.warnings.push_back("no example is held out of class " + without +
                              ": it was chosen by its own examples (raise data.validation_fraction)");
  }
  return result;
}

}  // namespace sage
