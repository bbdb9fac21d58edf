// Every selection method by name, in one table.
#pragma once
#include <span>
#include <string_view>

#include "selection/method_passes.h"
#include "selection/selection.h"

namespace sage {

struct SelectionMethod {
  std::string_view name;
  std::string_view meaning;
  bool needs_gradients;  ///< a network that scores (SelectionRequest::source)
  /// ALL ranks.
  SelectionResult (*select)(const SelectionRequest& request);
  std::string_view alias = {};
  FactorColumns keeps = {};       ///< the most that it keeps of each candidate between its pass and its choice
  bool needs_validation = false;  ///< examples held out (SelectionRequest::validation_ids)
};

std::span<const SelectionMethod> selection_methods();

/// By name or alias. Throws ConfigError that lists the methods there are.
const SelectionMethod& find_selection_method(std::string_view name);

/// Whether the method looks at the history of forgetting (SelectionRequest::forgotten).
bool wants_forgetting(const SelectionConfig& config);
/// Whether its scores can be averaged over selection.early.models networks (SelectionRequest::difficulty).
bool averages_networks(const SelectionConfig& config);

/// Bytes that a method beside sage holds on a rank with `examples` candidates, where the largest group that is chosen
/// from together has `group` members. An estimate: its factors, once more while they travel, the group in float64, and
/// a kernel where the method makes one.
std::int64_t method_bytes(const SelectionConfig& config, std::int64_t examples, std::int64_t group,
                          std::int64_t feature_count, std::int64_t class_count);

/// Throws ConfigError where the configuration lacks what its method needs: `held_out` examples for validation.
void check_selection_needs(const SelectionConfig& config, std::int64_t held_out);

/// ALL ranks: runs the method that request.config.method names. The same result on every rank.
SelectionResult select_examples(const SelectionRequest& request);

}  // namespace sage
