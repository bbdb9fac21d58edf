#include "selection/registry.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/config_keys.h"
#include "core/error.h"
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

constexpr std::array kMethods = {
    SelectionMethod{"sage", "agreement with the consensus of sketched gradients", true, select_sage},
    SelectionMethod{"random", "at random, class-balanced if selection.per_class", false, select_random},
    SelectionMethod{"full", "everything", false, select_full},
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
    if (method.name == name) return method;
  }
  std::vector<std::string> names;
  for (const SelectionMethod& method : kMethods) names.emplace_back(method.name);
  const std::string near = nearest_name(std::string(name), names);
  throw ConfigError(fmt::format("there is no selection.method `{}`{}; there are: {}", name,
                                near.empty() ? "" : fmt::format(" (did you mean `{}`?)", near),
                                fmt::join(names, ", ")));
}

SelectionResult select_examples(const SelectionRequest& request) {
  const SelectionMethod& method = find_selection_method(request.config.method);
  require(request.ids.size() == request.labels.size(), "select_examples: one label per id");
  require(std::is_sorted(request.ids.begin(), request.ids.end()), "select_examples: ids must ascend");
  require(!method.needs_gradients || request.source != nullptr, "select_examples: the method needs gradients");
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
