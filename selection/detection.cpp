#include "selection/detection.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace sage {
namespace {

/// Numbers by size, what is not a number before them all.
bool is_lower(float a, float b) { return std::isnan(a) ? !std::isnan(b) : a < b; }

/// Positions by ascending score, ties in their order.
std::vector<std::size_t> ascending(std::span<const float> scores) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return is_lower(scores[a], scores[b]); });
  return order;
}

}  // namespace

std::optional<double> auroc(std::span<const float> scores, const std::vector<bool>& is_bad) {
  require(scores.size() == is_bad.size(), "auroc: one score per example");
  const std::vector<std::size_t> order = ascending(scores);
  double bad = 0.0, good = 0.0, pairs = 0.0;  // pairs of a bad example and a good one above it
  for (std::size_t first = 0; first < order.size();) {
    double tied_bad = 0.0, tied_good = 0.0;
    std::size_t last = first;
    for (; last < order.size() && !is_lower(scores[order[first]], scores[order[last]]); ++last) {
      (is_bad[order[last]] ? tied_bad : tied_good) += 1.0;
    }
    pairs += tied_good * (bad + 0.5 * tied_bad);
    bad += tied_bad;
    good += tied_good;
    first = last;
  }
  if (bad == 0.0 || good == 0.0) return std::nullopt;
  return pairs / (bad * good);
}

PrecisionRecall precision_recall(std::span<const std::int64_t> suspects, std::span<const std::int64_t> bad) {
  const std::vector<bool> is_bad = membership(suspects, bad);
  const auto found = static_cast<double>(std::count(is_bad.begin(), is_bad.end(), true));
  PrecisionRecall result;
  if (!suspects.empty()) result.precision = found / static_cast<double>(suspects.size());
  if (!bad.empty()) result.recall = found / static_cast<double>(bad.size());
  return result;
}

std::vector<bool> membership(std::span<const std::int64_t> ids, std::span<const std::int64_t> bad) {
  std::vector<bool> is_bad;
  is_bad.reserve(ids.size());
  for (const std::int64_t id : ids) is_bad.push_back(std::binary_search(bad.begin(), bad.end(), id));
  return is_bad;
}

std::vector<std::int64_t> lowest_scored(std::span<const std::int64_t> ids, std::span<const float> scores,
                                        std::int64_t count) {
  require(ids.size() == scores.size(), "lowest_scored: one score per example");
  require(count >= 0, "lowest_scored: a negative count");
  std::vector<std::int64_t> lowest;
  for (const std::size_t position : ascending(scores)) {
    if (static_cast<std::int64_t>(lowest.size()) == count) break;
    lowest.push_back(ids[position]);
  }
  std::sort(lowest.begin(), lowest.end());
  return lowest;
}

}  // namespace sage
