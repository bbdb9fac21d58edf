// Requests that the tests on one and on several ranks share.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "selection/registry.h"
#include "support/classifier_source.h"

namespace sage::testing {

inline SelectionConfig small_config() {
  SelectionConfig config;
  config.fraction = 0.25;
  config.sketch.size = 8;
  config.batch_size = 16;
  return config;
}

inline std::vector<std::int64_t> all_ids(const ClassifierSource& source) {
  std::vector<std::int64_t> ids(source.labels.size());
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  return ids;
}

/// Selects among `ids` of the source.
inline SelectionResult select_from(ClassifierSource& source, const SelectionConfig& config, Communicator& communicator,
                                   const std::vector<std::int64_t>& ids, std::uint64_t seed = 1,
                                   std::uint64_t round = 0) {
  std::vector<std::int64_t> labels;
  for (std::int64_t id : ids) labels.push_back(source.labels[static_cast<std::size_t>(id)]);
  return select_examples({config, seed, round, ids, labels, source.class_count(), &source, communicator});
}

/// Everything of a result that must not depend on luck: not its times and bytes.
inline std::string bytes_of(const SelectionResult& result) {
  std::string bytes;
  const auto append = [&](const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); };
  append(result.kept.data(), result.kept.size() * sizeof(std::int64_t));
  append(result.scores.data(), result.scores.size() * sizeof(float));
  append(result.class_histogram.data(), result.class_histogram.size() * sizeof(std::int64_t));
  append(result.consensus_strength.data(), result.consensus_strength.size() * sizeof(double));
  append(result.doubtful.data(), result.doubtful.size() * sizeof(std::int64_t));
  for (const auto* peer : {&result.peers.small_loss, &result.peers.confident_learning, &result.peers.gradient_norm}) {
    append(peer->data(), peer->size() * sizeof(float));
  }
  for (const double value : {result.estimated_noise.value_or(-1.0), static_cast<double>(result.degenerate),
                             static_cast<double>(result.non_finite)}) {
    append(&value, sizeof value);
  }
  if (result.certificate) {
    for (const double value : {result.certificate->error_bound.value_or(-1), result.certificate->largest_eigenvalue,
                               result.certificate->squared_norm, static_cast<double>(result.certificate->rows_seen)}) {
      append(&value, sizeof value);
    }
  }
  for (const std::string& warning : result.warnings) bytes += warning;
  return bytes;
}

/// A way to configure a selection.
struct Variant {
  const char* name;
  void (*change)(SelectionConfig&);
};

/// Share of ids that two subsets have in common.
inline double overlap(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  std::vector<std::int64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(std::max<std::size_t>(std::max(a.size(), b.size()), 1));
}

}  // namespace sage::testing
