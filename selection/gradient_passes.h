// Walking over the gradients of this rank's logical shards in fixed micro-batches. Local: no collectives.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>

#include "distributed/shard_plan.h"
#include "selection/gradient_sketch.h"
#include "selection/selection.h"

namespace sage {

/// Examples of one micro-batch.
struct MicroBatch {
  std::span<const std::int64_t> ids, labels;
  std::int64_t offset = 0;  ///< of its first example among all of this rank
};

class GradientPasses {
 public:
  GradientPasses(const SelectionRequest& request, const ShardPlan& plan) : request_(request), plan_(plan) {}

  /// What a pass does with class probabilities ([n, C], on the source's device); empty: they are not asked for.
  using UseProbabilities = std::function<void(const at::Tensor& probabilities, std::span<const std::int64_t> labels)>;
  /// What a pass does with projected gradients ([n, r]) and squared gradient norms ([n], float32).
  using UseProjection =
      std::function<void(const MicroBatch&, const at::Tensor& projected, const at::Tensor& squared_norms)>;

  /// Streams all gradients into `sketch`. Gradients that are not finite go in as zeros: returns how many.
  std::int64_t sketch(GradientSketch& sketch, const UseProbabilities& use_probabilities) const;
  /// Projects all gradients with S [r, D] (on the source's device).
  void project(const at::Tensor& sketch, const UseProjection& use, const UseProbabilities& use_probabilities) const;

  /// Examples of this rank.
  std::int64_t example_count() const;

 private:
  void for_micro_batches(std::int64_t shard, const std::function<void(const MicroBatch&)>& body) const;
  const SelectionRequest& request_;
  const ShardPlan& plan_;
};

}  // namespace sage
