// What the methods that choose by factors of the last layer share: who holds which rows, and how the choices of all
// ranks come together.
//
// Where there are several groups, each is worked on by one rank, which is sent all its rows: no talk in between, and
// the same bits at any number of ranks. A single group (selection.per_class: false) stays spread over the ranks, and
// each step of a greedy choice is agreed on (shared_rows.h).
//
// Memory of a rank, for `width` floats an example that the method keeps: its examples, once more while rows travel, and
// the examples of its groups, 4 x width bytes each; 8 x width bytes for each example of the group in work.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "selection/groups.h"
#include "selection/method_passes.h"
#include "selection/selection.h"

namespace sage {

/// Examples of a group that this rank has. float64, CPU, contiguous; undefined where not wanted.
struct Points {
  std::vector<std::int64_t> positions;  ///< among the candidates (or among those of validation), ascending
  at::Tensor features;                  ///< [n, F]
  at::Tensor residuals;                 ///< [n, C]
  at::Tensor probabilities;             ///< [n, C]
  std::int64_t count() const { return static_cast<std::int64_t>(positions.size()); }
};

struct GroupTask {
  const SelectionRequest& request;
  const Group& group;
  std::uint32_t number;        ///< of the group, for random draws
  const Points& points;        ///< this rank's part of the group's members
  const Points& validation;    ///< examples of the same class held out, this rank's part; none unless asked for
  Communicator& communicator;  ///< of the ranks that share the group
};

struct Pick {
  std::int64_t position = 0;  ///< among the candidates
  double weight = 1.0;
};

struct GroupMethod {
  const char* name;
  FactorColumns columns;
  bool weighs = false;            ///< whether the picks have weights
  bool uses_validation = false;   ///< wants the factors of the examples held out
  std::int64_t largest_part = 0;  ///< > 0: every group lies on one rank whole, and none is larger
  /// ALL ranks of task.communicator: exactly group.budget (>= 1) different members, the same on each.
  std::function<std::vector<Pick>(const GroupTask&)> choose;
};

/// ALL ranks: the whole method.
SelectionResult select_in_groups(const SelectionRequest& request, const GroupMethod& method);

}  // namespace sage
