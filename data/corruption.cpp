#include "data/corruption.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace sage {

std::vector<std::int64_t> corrupt_labels(std::vector<std::int64_t>& labels, std::span<const std::int64_t> ids,
                                         std::int64_t class_count, double rate, std::string_view kind,
                                         std::uint64_t seed) {
  if (!(rate >= 0.0 && rate <= 1.0)) throw ConfigError(fmt::format("data.corrupt_labels: {} is not in [0, 1]", rate));
  const bool pair = kind == "pair";
  if (!pair && kind != "symmetric") {
    throw ConfigError(fmt::format("data.corrupt_kind: `{}` is neither symmetric nor pair", kind));
  }
  const auto count = static_cast<std::size_t>(std::llround(rate * static_cast<double>(ids.size())));
  if (count == 0) return {};
  if (class_count < 2) throw ConfigError("data.corrupt_labels: with less than two classes no label can be wrong");

  const auto order = random_permutation(static_cast<std::int64_t>(ids.size()), RandomStream(seed, "corrupt_examples"));
  std::vector<std::int64_t> changed;
  for (std::size_t i = 0; i < count; ++i) changed.push_back(ids[static_cast<std::size_t>(order[i])]);
  std::ranges::sort(changed);
  for (const std::int64_t id : changed) {
    std::int64_t& label = labels.at(static_cast<std::size_t>(id));
    // A step of 1 .. C-1 around the circle of classes never returns to the label itself.
    std::int64_t step = 1;
    if (!pair) {
      RandomStream stream(seed, "corrupt_label", static_cast<std::uint64_t>(id));
      step += static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(class_count - 1)));
    }
    label = (label + step) % class_count;
  }
  return changed;
}

std::vector<std::int64_t> corrupt_labels(std::vector<std::int64_t>& labels, std::int64_t class_count, double rate,
                                         std::string_view kind, std::uint64_t seed) {
  std::vector<std::int64_t> ids(labels.size());
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  return corrupt_labels(labels, ids, class_count, rate, kind, seed);
}

ValidationSplit split_validation(const Dataset& dataset, double fraction, std::uint64_t seed) {
  if (!(fraction >= 0.0 && fraction < 1.0)) {
    throw ConfigError(fmt::format("data.validation_fraction: {} is not in [0, 1)", fraction));
  }
  const std::int64_t total = dataset.train.size();
  const auto wanted = static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(total)));
  if (fraction > 0.0 && (wanted == 0 || wanted == total)) {
    throw ConfigError(fmt::format("data.validation_fraction: {} of {} examples leaves no example for {}", fraction,
                                  total, wanted == 0 ? "validation" : "training"));
  }
  const auto classes = static_cast<std::size_t>(dataset.class_count);
  std::vector<std::vector<std::int64_t>> members(classes);
  for (std::int64_t id = 0; id < total; ++id) {
    members[static_cast<std::size_t>(dataset.train.labels[static_cast<std::size_t>(id)])].push_back(id);
  }
  // Largest remainder in whole numbers: class c gets wanted x n_c / N rounded down, the rest go by remainder.
  std::vector<std::int64_t> quota(classes);
  std::vector<std::size_t> by_remainder(classes);
  std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
  std::int64_t rest = wanted;
  auto product = [&](std::size_t c) { return wanted * static_cast<std::int64_t>(members[c].size()); };
  for (std::size_t c = 0; c < classes; ++c) rest -= quota[c] = total > 0 ? product(c) / total : 0;
  std::ranges::stable_sort(by_remainder, [&](auto a, auto b) { return product(a) % total > product(b) % total; });
  for (std::size_t i = 0; rest > 0; ++i, --rest) ++quota[by_remainder[i]];

  ValidationSplit split;
  for (std::size_t c = 0; c < classes; ++c) {
    const auto order =
        random_permutation(static_cast<std::int64_t>(members[c].size()), RandomStream(seed, "validation", c));
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::int64_t id = members[c][static_cast<std::size_t>(order[i])];
      (static_cast<std::int64_t>(i) < quota[c] ? split.validation : split.train).push_back(id);
    }
  }
  std::ranges::sort(split.train);
  std::ranges::sort(split.validation);
  return split;
}

}  // namespace sage
