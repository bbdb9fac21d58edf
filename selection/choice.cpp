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

std::vector<std::int64_t> choose_after_filter(const SelectionRequest& request, std::int64_t size,
                                              const ConfidentCounting* doubts, const CoverageDraw& cover,
                                              SelectionResult& result) {
  const SelectionConfig& config = request.config;
  const auto count = static_cast<std::int64_t>(request.ids.size());
  std::vector<std::int64_t> cut;
  if (doubts != nullptr) {
    const SuspectCounts suspects = doubts->suspects();
    result.estimated_noise = estimated_wrong(suspects, config.filter.count) / static_cast<double>(count);
    cut = gated_cut(suspects, config.filter.count, config.filter.gate, count);
  } else {
    cut = fixed_cut(config.filter.drop, count_classes(request.labels, request.class_count));
  }
  const std::int64_t most = count - size;
  if (const std::int64_t total = sum(cut); total > most) {
    result.warnings.push_back(fmt::format(
        "{} labels are in doubt, but selection.fraction {} leaves room to cut only {}", total, config.fraction, most));
    cut = split_by_weight(most, cut, cut);
  }
  const std::vector<std::int64_t> doubtful = least_trusted(trust_of(config, result), request.labels, cut);
  for (std::int64_t position : doubtful) result.doubtful.push_back(request.ids[static_cast<std::size_t>(position)]);
  if (config.keep == "coverage") return cover(doubtful, size);
  return draw_balanced(request.labels, request.class_count, doubtful, size, request.seed, "filter", request.round);
}

}  // namespace

std::vector<float> trust_of(const SelectionConfig& config, const SelectionResult& result) {
  if (config.filter.by == "small_loss") return result.peers.small_loss;
  if (config.filter.by == "confident_learning") return result.peers.confident_learning;
  std::vector<float> scores = result.scores;
  if (config.scoring == "agreement") return scores;
  for (float& value : scores) value = value == kLowestScore ? -std::numeric_limits<float>::infinity() : -value;
  return scores;
}

std::vector<std::int64_t> best_by_score(const SelectionRequest& request, std::span<const float> scores) {
  const std::int64_t size = subset_size(request.config.fraction, static_cast<std::int64_t>(request.ids.size()));
  if (!request.config.per_class) return highest(scores, size);
  const std::vector<std::int64_t> available = count_classes(request.labels, request.class_count);
  return highest_of_each_class(scores, request.labels, class_quota(size, available));
}

void choose_by_score(const SelectionRequest& request, const ConfidentCounting* doubts, const CoverageDraw& cover,
                     SelectionResult& result) {
  const std::int64_t size = subset_size(request.config.fraction, static_cast<std::int64_t>(request.ids.size()));
  const std::vector<std::int64_t> chosen = request.config.keep == "top"
                                               ? best_by_score(request, result.scores)
                                               : choose_after_filter(request, size, doubts, cover, result);
  for (std::int64_t position : chosen) result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  describe_classes(request, result);
}

}  // namespace sage
