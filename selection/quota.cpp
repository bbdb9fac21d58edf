#include "selection/quota.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/error.h"

namespace sage {
namespace {

// Wide enough for examples x weight.
__extension__ using Product = __int128;

}  // namespace

std::int64_t subset_size(double fraction, std::int64_t count) {
  if (!(fraction > 0.0 && fraction <= 1.0)) {
    throw ConfigError(fmt::format("selection.fraction must lie above 0 and be at most 1 (it is {})", fraction));
  }
  const auto size = static_cast<std::int64_t>(std::floor(fraction * static_cast<double>(count) + 0.5));
  if (size < 1) {
    throw ConfigError(fmt::format("selection.fraction {} of {} examples selects nothing: it must be at least {:.2g}",
                                  fraction, count, 0.5 / static_cast<double>(std::max<std::int64_t>(count, 1))));
  }
  return std::min(size, count);
}

std::vector<std::int64_t> split_by_weight(std::int64_t total, std::span<const std::int64_t> weights,
                                          std::span<const std::int64_t> available) {
  require(weights.size() == available.size(), "split_by_weight: one weight per class");
  std::vector<std::int64_t> quota(available.size(), 0);
  std::vector<std::size_t> open;
  for (std::size_t c = 0; c < quota.size(); ++c) {
    if (available[c] > 0 && weights[c] > 0) open.push_back(c);
  }
  while (total > 0 && !open.empty()) {
    // Whole shares, then one more for the largest remainders of total x weight / sum of weights.
    std::int64_t weight = 0, left = total;
    for (std::size_t c : open) weight += weights[c];
    std::vector<std::int64_t> remainder(quota.size(), 0);
    for (std::size_t c : open) {
      const Product product = static_cast<Product>(total) * weights[c];
      quota[c] = static_cast<std::int64_t>(product / weight);
      remainder[c] = static_cast<std::int64_t>(product % weight);
      left -= quota[c];
    }
    std::vector<std::size_t> order = open;
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return remainder[a] > remainder[b]; });
    for (std::int64_t i = 0; i < left; ++i) ++quota[order[static_cast<std::size_t>(i)]];

    // Classes that cannot take their share take all they have; the others share the rest anew.
    std::vector<std::size_t> able;
    std::int64_t rest = total;
    for (std::size_t c : open) {
      if (quota[c] <= available[c]) {
        able.push_back(c);
      } else {
        quota[c] = available[c];
        rest -= available[c];
      }
    }
    if (able.size() == open.size()) break;
    open = std::move(able);
    total = rest;
  }
  return quota;
}

std::vector<std::int64_t> class_quota(std::int64_t total, std::span<const std::int64_t> available) {
  const std::vector<std::int64_t> equal(available.size(), 1);
  return split_by_weight(total, equal, available);
}

std::vector<std::int64_t> count_classes(std::span<const std::int64_t> labels, std::int64_t class_count) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(class_count), 0);
  for (std::int64_t label : labels) {
    require(label >= 0 && label < class_count, "count_classes: a label is out of range");
    ++counts[static_cast<std::size_t>(label)];
  }
  return counts;
}

std::vector<std::vector<std::int64_t>> members_of_classes(std::span<const std::int64_t> labels,
                                                          std::int64_t class_count,
                                                          std::span<const std::int64_t> excluded) {
  std::vector<std::vector<std::int64_t>> members(static_cast<std::size_t>(class_count));
  auto skip = excluded.begin();
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(labels.size()); ++i) {
    if (skip != excluded.end() && *skip == i) {
      ++skip;
      continue;
    }
    const std::int64_t label = labels[static_cast<std::size_t>(i)];
    require(label >= 0 && label < class_count, "members_of_classes: a label is out of range");
    members[static_cast<std::size_t>(label)].push_back(i);
  }
  return members;
}

namespace {

/// Appends the `total` best of `positions` to `chosen`.
void append_highest(std::span<const float> scores, std::vector<std::int64_t>& positions, std::int64_t total,
                    std::vector<std::int64_t>& chosen) {
  require(total <= static_cast<std::int64_t>(positions.size()), "a quota exceeds the examples of its class");
  std::nth_element(positions.begin(), positions.begin() + total, positions.end(), [&](std::int64_t a, std::int64_t b) {
    const float x = scores[static_cast<std::size_t>(a)], y = scores[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  });
  chosen.insert(chosen.end(), positions.begin(), positions.begin() + total);
}

}  // namespace

std::vector<std::int64_t> highest(std::span<const float> scores, std::int64_t total) {
  std::vector<std::int64_t> positions(scores.size()), chosen;
  std::iota(positions.begin(), positions.end(), std::int64_t{0});
  append_highest(scores, positions, total, chosen);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int64_t> highest_of_each_class(std::span<const float> scores, std::span<const std::int64_t> labels,
                                                std::span<const std::int64_t> quota) {
  require(scores.size() == labels.size(), "one score per label");
  std::vector<std::vector<std::int64_t>> members(quota.size());
  for (std::size_t i = 0; i < labels.size(); ++i) {
    members[static_cast<std::size_t>(labels[i])].push_back(static_cast<std::int64_t>(i));
  }
  std::vector<std::int64_t> chosen;
  for (std::size_t c = 0; c < quota.size(); ++c) append_highest(scores, members[c], quota[c], chosen);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace sage
