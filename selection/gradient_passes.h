// Walking over the gradients of this rank's logical shards in fixed micro-batches. No collectives but the question
// whether to stop.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "distributed/shard_plan.h"
#include "selection/gradient_sketch.h"
#include "selection/selection.h"

namespace sage {

/// Examples of one micro-batch.
struct MicroBatch {
  std::span<const std::int64_t> ids, labels;
  std::int64_t offset = 0;  ///< of its first example among all of this rank
};

/// Micro-batches between two questions whether to stop.
constexpr std::int64_t kStopInterval = 4;

class GradientPasses {
 public:
  GradientPasses(const SelectionRequest& request, const ShardPlan& plan) : request_(request), plan_(plan) {}

  /// What a pass does with class probabilities ([n, C], on the source's device); empty: they are not asked for.
  using UseProbabilities = std::function<void(const at::Tensor& probabilities, std::span<const std::int64_t> labels)>;
  /// What a pass does with projected gradients ([n, r]) and squared gradient norms ([n], float32; undefined unless
  /// asked for).
  using UseProjection =
      std::function<void(const MicroBatch&, const at::Tensor& projected, const at::Tensor& squared_norms)>;

  /// What pass 1 leaves behind where it is asked to stop, and goes on from.
  struct SketchProgress {
    std::vector<std::int64_t> rows_done;  ///< of each logical shard, as in selection_state.h
    std::int64_t non_finite = 0;          ///< gradients of this rank that are not finite: they went in as zeros
  };

  // All passes: ALL ranks where request.stop_requested is set; it is asked after every kStopInterval micro-batches, as
  // often by ranks that have fewer. They return false if they were asked to stop.

  /// Streams the gradients into `sketch` that `progress` says are not in yet.
  [[nodiscard]] bool sketch(GradientSketch& sketch, SketchProgress& progress,
                            const UseProbabilities& use_probabilities) const;
  /// What a pass does with the factors of the last layer's gradients.
  using UseFactors = std::function<void(const MicroBatch&, const ExampleFactors&)>;
  /// Computes the factors of all examples.
  [[nodiscard]] bool factors(const UseFactors& use) const;
  /// Projects all gradients with S [r, D] (on the source's device).
  [[nodiscard]] bool project(const at::Tensor& sketch, const UseProjection& use,
                             const UseProbabilities& use_probabilities, bool with_norms = false) const;

  /// Examples of this rank.
  std::int64_t example_count() const;
  /// Ids of those at `offsets` among them.
  std::vector<std::int64_t> ids_at(std::span<const std::int64_t> offsets) const;
  /// The most examples of a micro-batch.
  std::int64_t batch_size() const { return request_.config.batch_size; }

 private:
  class StopPoints;
  /// Calls body(micro-batch) for those of a shard from position `done` of it on; false: asked to stop.
  bool for_micro_batches(std::int64_t shard, std::int64_t done, StopPoints& stop_points,
                         const std::function<void(const MicroBatch&)>& body) const;
  /// The most micro-batches that a rank has left.
  std::int64_t most_micro_batches(const std::vector<std::int64_t>& rows_done) const;
  const SelectionRequest& request_;
  const ShardPlan& plan_;
};

}  // namespace sage
