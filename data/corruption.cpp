#include "data/corruption.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "data/byte_reader.h"

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

std::vector<std::int64_t> take_human_labels(std::vector<std::int64_t>& labels, std::span<const std::int64_t> ids,
                                            std::int64_t class_count, const std::filesystem::path& file,
                                            bool allow_partial) {
  const auto refuse = [&](const std::string& cause) {
    throw DataError(
        fmt::format("{} (data.human_labels): {}; expected one byte for each training example, in the "
                    "official order, as CIFAR-N's label files have them",
                    file.string(), cause));
  };
  const std::string bytes = read_all_bytes(file, std::size_t{64} << 20);
  const bool fits = allow_partial ? bytes.size() >= labels.size() : bytes.size() == labels.size();
  if (!fits) refuse(fmt::format("holds {} labels, but there are {} training examples", bytes.size(), labels.size()));
  for (std::size_t id = 0; id < labels.size(); ++id) {
    const int label = static_cast<unsigned char>(bytes[id]);
    if (label >= class_count) {
      refuse(
          fmt::format("record {} is {}, but there are {} classes, 0 to {}", id, label, class_count, class_count - 1));
    }
  }
  std::vector<std::int64_t> changed;
  for (const std::int64_t id : ids) {
    const auto at = static_cast<std::size_t>(id);
    const std::int64_t given = static_cast<unsigned char>(bytes[at]);
    if (given == labels.at(at)) continue;
    labels[at] = given;
    changed.push_back(id);
  }
  if (changed.empty()) refuse("every label is the data set's own: these are the clean labels");
  const double agreeing = 1.0 - static_cast<double>(changed.size()) / static_cast<double>(ids.size());
  if (agreeing < 1.0 / static_cast<double>(class_count) + 0.05) {
    refuse(
        fmt::format("only {:.1f} % of its labels are the data set's, about as many as by chance: these are the "
                    "labels of another data set",
                    100 * agreeing));
  }
  return changed;
}

namespace {

using Members = std::vector<std::vector<std::int64_t>>;

Members members_of(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids, std::int64_t class_count) {
  Members members(static_cast<std::size_t>(class_count));
  for (const std::int64_t id : ids) {
    members.at(static_cast<std::size_t>(labels[static_cast<std::size_t>(id)])).push_back(id);
  }
  return members;
}

/// `keeps(c, i)`: whether the i-th of class c stays. `what`: the setting that is to blame for a class without examples.
template <class Keeps>
Thinned thin(const Members& members, const std::string& what, Keeps keeps) {
  Thinned result;
  for (std::size_t c = 0; c < members.size(); ++c) {
    const std::size_t before = result.kept.size();
    for (std::size_t i = 0; i < members[c].size(); ++i) {
      (keeps(c, i) ? result.kept : result.dropped).push_back(members[c][i]);
    }
    if (!members[c].empty() && result.kept.size() == before) {
      throw ConfigError(fmt::format("{} leaves class {} without an example (it has {}): bring it nearer to keeping all",
                                    what, c, members[c].size()));
    }
  }
  std::ranges::sort(result.kept);
  std::ranges::sort(result.dropped);
  return result;
}

}  // namespace

Thinned make_long_tail(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                       std::int64_t class_count, double imbalance, std::uint64_t seed) {
  if (!(imbalance > 0.0 && imbalance <= 1.0)) {
    throw ConfigError(fmt::format("data.long_tail: {} is not in (0, 1]", imbalance));
  }
  const Members members = members_of(labels, ids, class_count);
  std::size_t most = 0;
  for (const auto& of_class : members) most = std::max(most, of_class.size());
  // position[c][i]: where the i-th of class c comes in a random order.
  Members position;
  std::vector<std::int64_t> quota;
  for (std::size_t c = 0; c < members.size(); ++c) {
    const auto order =
        random_permutation(static_cast<std::int64_t>(members[c].size()), RandomStream(seed, "long_tail", c));
    auto& places = position.emplace_back(order.size());
    for (std::size_t i = 0; i < order.size(); ++i)
      places[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    const double exponent = static_cast<double>(c) / std::max(1.0, static_cast<double>(class_count - 1));
    // A whole number must not be missed by the last bit of a power.
    quota.push_back(
        static_cast<std::int64_t>(std::floor(static_cast<double>(most) * std::pow(imbalance, exponent) + 1e-9)));
  }
  return thin(members, fmt::format("data.long_tail {}", imbalance),
              [&](std::size_t c, std::size_t i) { return position[c][i] < quota[c]; });
}

Thinned downsample_minority(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                            std::int64_t class_count, double rate, std::uint64_t seed) {
  if (!(rate >= 0.0 && rate < 1.0)) {
    throw ConfigError(fmt::format("data.minority_downsample: {} is not in [0, 1)", rate));
  }
  const Members members = members_of(labels, ids, class_count);
  std::vector<std::size_t> by_size(members.size());
  std::iota(by_size.begin(), by_size.end(), std::size_t{0});
  std::ranges::stable_sort(by_size, {}, [&](std::size_t c) { return members[c].size(); });
  std::vector<bool> is_minor(members.size(), false);
  for (std::size_t i = 0; i < members.size() / 2; ++i) is_minor[by_size[i]] = true;
  return thin(members, fmt::format("data.minority_downsample {}", rate), [&](std::size_t c, std::size_t i) {
    if (!is_minor[c]) return true;
    return RandomStream(seed, "minority_downsample", static_cast<std::uint64_t>(members[c][i])).uniform() >= rate;
  });
}

ValidationSplit split_validation(std::span<const std::int64_t> labels, std::span<const std::int64_t> ids,
                                 std::int64_t class_count, double fraction, std::uint64_t seed) {
  if (!(fraction >= 0.0 && fraction < 1.0)) {
    throw ConfigError(fmt::format("data.validation_fraction: {} is not in [0, 1)", fraction));
  }
  const auto total = static_cast<std::int64_t>(ids.size());
  const auto wanted = static_cast<std::int64_t>(std::llround(fraction * static_cast<double>(total)));
  if (fraction > 0.0 && (wanted == 0 || wanted == total)) {
    throw ConfigError(fmt::format("data.validation_fraction: {} of {} examples leaves no example for {}", fraction,
                                  total, wanted == 0 ? "validation" : "training"));
  }
  const Members members = members_of(labels, ids, class_count);
  const std::size_t classes = members.size();
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
