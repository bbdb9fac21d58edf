#include "selection/registry.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/config_keys.h"
#include "core/error.h"
#include "selection/kernels.h"
#include "selection/methods.h"
#include "selection/quota.h"
#include "selection/random_subset.h"
#include "selection/sage_selector.h"

namespace sage {
namespace {

/// crest makes no subset that another trainer could use.
SelectionResult refuse_subsets(const SelectionRequest& request) {
  throw ConfigError(
      fmt::format("selection.method {} chooses mini-batches anew while it trains, and no subset: train with it "
                  "(`sage train`), or select with another method",
                  request.config.method));
}

constexpr FactorColumns kFeatures{.features = true}, kGradients{.features = true, .residuals = true},
    kEverything{.features = true, .residuals = true, .probabilities = true};

constexpr std::array kMethods = {
    SelectionMethod{"sage", "agreement with the consensus of sketched gradients", true, select_sage},
    SelectionMethod{"random", "at random, class-balanced if selection.per_class", false, select_random},
    SelectionMethod{"full", "everything", false, select_full},
    SelectionMethod{"uncertainty", "the least certain answers", true, select_uncertainty},
    SelectionMethod{"diversity", "farthest first in the features", true, select_k_center, "k_center", kFeatures},
    SelectionMethod{"gradmatch", "weighted gradients that sum to that of all", true, select_gradmatch, {}, kGradients},
    SelectionMethod{"craig", "weighted medoids of the gradients", true, select_craig, {}, kGradients},
    SelectionMethod{
        "glister", "gradients along that of the examples held out", true, select_glister, {}, kEverything, true},
    SelectionMethod{"el2n", "the largest errors of the probabilities", true, select_el2n},
    SelectionMethod{"grand", "the largest gradients", true, select_grand},
    SelectionMethod{"forgetting", "those most often forgotten while training", false, select_forgetting},
    SelectionMethod{"herding", "features whose mean is that of the class", true, select_herding, {}, kFeatures},
    SelectionMethod{"submodular", "facility location or graph cut", true, select_submodular, {}, kGradients},
    SelectionMethod{"ccs", "over all grades of difficulty but the hardest", true, select_ccs},
    SelectionMethod{"crest", "mini-batch coresets, chosen while training (training/crest)", false, refuse_subsets},
};

/// ALL ranks: the times of the slowest, so that every rank reports the same.
void share_seconds(Communicator& communicator, SelectionSeconds& seconds) {
  const at::Tensor times = at::tensor({seconds.sketch, seconds.merge, seconds.score, seconds.choose}, at::kDouble);
  const at::Tensor there = times.to(communicator.device());
  communicator.all_reduce_max(there);
  const at::Tensor slowest = there.cpu();
  const double* time = slowest.const_data_ptr<double>();
  seconds = {time[0], time[1], time[2], time[3]};
}

}  // namespace

std::span<const SelectionMethod> selection_methods() { return kMethods; }

const SelectionMethod& find_selection_method(std::string_view name) {
  for (const SelectionMethod& method : kMethods) {
    if (method.name == name || (!method.alias.empty() && method.alias == name)) return method;
  }
  std::vector<std::string> names;
  for (const SelectionMethod& method : kMethods) {
    names.emplace_back(method.name);
    if (!method.alias.empty()) names.emplace_back(method.alias);
  }
  const std::string near = nearest_name(std::string(name), names);
  throw ConfigError(fmt::format("there is no selection.method `{}`{}; there are: {}", name,
                                near.empty() ? "" : fmt::format(" (did you mean `{}`?)", near),
                                fmt::join(names, ", ")));
}

bool wants_forgetting(const SelectionConfig& config) {
  const std::string_view method = find_selection_method(config.method).name;
  return method == "forgetting" || (method == "ccs" && config.ccs.score == "forgetting");
}

bool averages_networks(const SelectionConfig& config) {
  const std::string_view method = find_selection_method(config.method).name;
  return method == "el2n" || method == "grand" || (method == "ccs" && config.ccs.score != "forgetting");
}

std::int64_t method_bytes(const SelectionConfig& config, std::int64_t examples, std::int64_t group,
                          std::int64_t feature_count, std::int64_t class_count) {
  const SelectionMethod& method = find_selection_method(config.method);
  FactorColumns keeps = method.keeps;
  if (method.name == "craig") keeps.features = config.craig.features == "gradient";
  if (method.name == "submodular") keeps.residuals = config.submodular.features == "gradient";
  const std::int64_t width = keeps.width(feature_count, class_count);
  const bool has_kernel =
      method.name == "craig" || (method.name == "submodular" && config.submodular.function == "facility_location");
  const std::int64_t together = has_kernel ? std::min(group, largest_kernel(config)) : group;
  const auto of_float = static_cast<std::int64_t>(sizeof(float)), of_double = static_cast<std::int64_t>(sizeof(double));
  return 2 * examples * width * of_float + 2 * together * width * of_double +
         (has_kernel ? together * together * of_float : 0);
}

void check_selection_needs(const SelectionConfig& config, std::int64_t held_out) {
  const SelectionMethod& method = find_selection_method(config.method);
  if (method.needs_validation && held_out == 0) {
    throw ConfigError(
        fmt::format("selection.method={} chooses by the loss on examples held out of the training set, and there are "
                    "none: set data.validation_fraction above 0 (for example 0.1)",
                    method.name));
  }
}

SelectionResult select_examples(const SelectionRequest& request) {
  const SelectionMethod& method = find_selection_method(request.config.method);
  require(request.ids.size() == request.labels.size(), "select_examples: one label per id");
  require(std::is_sorted(request.ids.begin(), request.ids.end()), "select_examples: ids must ascend");
  require(!method.needs_gradients || request.source != nullptr, "select_examples: the method needs gradients");
  require(request.validation_ids.size() == request.validation_labels.size(),
          "select_examples: one label per held-out id");
  check_selection_needs(request.config, static_cast<std::int64_t>(request.validation_ids.size()));
  SelectionResult result = method.select(request);
  share_seconds(request.communicator, result.seconds);
  return result;
}

void describe_classes(const SelectionRequest& request, SelectionResult& result) {
  result.class_histogram.assign(static_cast<std::size_t>(request.class_count), 0);
  auto next = request.ids.begin();
  for (std::int64_t id : result.kept) {
    next = std::lower_bound(next, request.ids.end(), id);
    const auto position = static_cast<std::size_t>(next - request.ids.begin());
    ++result.class_histogram[static_cast<std::size_t>(request.labels[position])];
  }
  const std::vector<std::int64_t> candidates = count_classes(request.labels, request.class_count);
  std::string without;
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    if (candidates[c] > 0 && result.class_histogram[c] == 0)
      without += fmt::format("{}{}", without.empty() ? "" : ", ", c);
  }
  if (!without.empty()) {
    result.warnings.push_back(
        fmt::format("no example was kept of class {}: a network trained on this subset cannot know "
                    "it (raise selection.fraction or set selection.per_class)",
                    without));
  }
}

}  // namespace sage
