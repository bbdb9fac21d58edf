#include "selection/choice.h"

#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "selection/quota.h"
#include "selection/random_subset.h"

namespace sage {
namespace {

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

/// Agreement; or, where norms were taken, the smaller the more trusted, and gradients that are not finite not at all.
std::vector<float> trust(const SelectionConfig& config, std::vector<float> scores) {
  if (config.scoring == "agreement") return scores;
  for (float& value : scores) value = value == kLowestScore ? -std::numeric_limits<float>::infinity() : -value;
  return scores;
}

std::vector<std::int64_t> choose_after_filter(const SelectionRequest& request, std::int64_t size,
                                              const ConfidentCounting* doubts, SelectionResult& result) {
  const SelectionConfig& config = request.config;
  const auto count = static_cast<std::int64_t>(request.ids.size());
  std::vector<std::int64_t> cut;
  if (doubts != nullptr) {
    const std::vector<std::int64_t> suspects = doubts->suspects();
    result.estimated_noise = static_cast<double>(sum(suspects)) / static_cast<double>(count);
    cut = gated_cut(suspects, config.filter.gate, count);
  } else {
    cut = fixed_cut(config.filter.drop, count_classes(request.labels, request.class_count));
  }
  const std::int64_t most = count - size;
  if (const std::int64_t total = sum(cut); total > most) {
    result.warnings.push_back(fmt::format(
        "{} labels are in doubt, but selection.fraction {} leaves room to cut only {}", total, config.fraction, most));
    cut = split_by_weight(most, cut, cut);
  }
  const std::vector<std::int64_t> doubtful = least_trusted(trust(config, result.scores), request.labels, cut);
  for (std::int64_t position : doubtful) result.doubtful.push_back(request.ids[static_cast<std::size_t>(position)]);
  return draw_balanced(request.labels, request.class_count, doubtful, size, request.seed, "filter", request.round);
}

}  // namespace

std::vector<std::int64_t> best_by_score(const SelectionRequest& request, std::span<const float> scores) {
  const std::int64_t size = subset_size(request.config.fraction, static_cast<std::int64_t>(request.ids.size()));
  if (!request.config.per_class) return highest(scores, size);
  const std::vector<std::int64_t> available = count_classes(request.labels, request.class_count);
  return highest_of_each_class(scores, request.labels, class_quota(size, available));
}

void choose_by_score(const SelectionRequest& request, const ConfidentCounting* doubts, SelectionResult& result) {
  const std::int64_t size = subset_size(request.config.fraction, static_cast<std::int64_t>(request.ids.size()));
  const std::vector<std::int64_t> chosen = request.config.keep == "filter"
                                               ? choose_after_filter(request, size, doubts, result)
                                               : best_by_score(request, result.scores);
  for (std::int64_t position : chosen) result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  describe_classes(request, result);
}

}  // namespace sage
