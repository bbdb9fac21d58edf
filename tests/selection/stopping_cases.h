// Selections that are stopped, shared by the tests on ranks and on threads.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "selection_cases.h"

namespace sage::testing {

/// What came of a selection: its result, or what it left behind.
struct Attempt {
  std::optional<SelectionResult> result;
  SelectionState state;
  std::int64_t questions = 0;  ///< how often it asked whether to stop
};

/// ALL ranks: selects from all examples, from `state` on, and is stopped at question number `stop_at` (from 0; -1:
/// never).
inline Attempt attempt(ClassifierSource& source, const SelectionConfig& config, Communicator& communicator,
                       std::int64_t stop_at, const SelectionState* state = nullptr, std::uint64_t seed = 1) {
  const std::vector<std::int64_t> ids = all_ids(source);
  Attempt attempt;
  SelectionRequest request{config, seed, 0, ids, source.labels, source.class_count(), &source, communicator};
  request.stop_requested = [&] { return attempt.questions++ == stop_at; };
  request.resume_from = state;
  try {
    attempt.result = select_examples(request);
  } catch (const SelectionStopped& stopped) {
    attempt.state = stopped.state();
  }
  return attempt;
}

inline constexpr Variant kStoppedVariants[] = {
    {"filter", [](SelectionConfig& c) { c.keep = "filter"; }},
    {"recomputed",
     [](SelectionConfig& c) {
       c.scores = "recomputed";
       c.per_class = false;
     }},
    {"exact covariance, filter",
     [](SelectionConfig& c) {
       c.sketch.size = 20;
       c.keep = "filter";
     }},
    {"random projection, filter",
     [](SelectionConfig& c) {
       c.sketch.method = "random_projection";
       c.keep = "filter";
     }},
    {"gradient norm", [](SelectionConfig& c) { c.scoring = "gradient_norm"; }},
    {"two shards", [](SelectionConfig& c) { c.shards = 2; }},
    {"alpha, clusters, recomputed, coverage",
     [](SelectionConfig& c) {
       c.sketch.alpha = 0.5;
       c.clusters = 2;
       c.scores = "recomputed";
       c.keep = "coverage";
       c.coverage = "facility_location";
     }},
    {"auto size",
     [](SelectionConfig& c) {
       c.sketch.size = 0;
       c.sketch.max_size = 16;
       c.sketch.epsilon = 0.001;
     }},
};

/// 300 examples, one of them without a direction and one not finite.
inline ClassifierSource stopped_source() {
  ClassifierSource source(300, 5, 12, 0.2, 3);  // D = 65
  source.matrix()[17].zero_();
  source.matrix()[250][1] = NAN;
  return source;
}

}  // namespace sage::testing
