// Every selection method by name, in one table.
#pragma once
#include <span>
#include <string_view>

#include "selection/selection.h"

namespace sage {

struct SelectionMethod {
  std::string_view name;
  std::string_view meaning;
  bool needs_gradients;
  /// ALL ranks.
  SelectionResult (*select)(const SelectionRequest& request);
};

std::span<const SelectionMethod> selection_methods();

/// Throws ConfigError that lists the methods there are.
const SelectionMethod& find_selection_method(std::string_view name);

/// ALL ranks: runs the method that request.config.method names. The same result on every rank.
SelectionResult select_examples(const SelectionRequest& request);

}  // namespace sage
