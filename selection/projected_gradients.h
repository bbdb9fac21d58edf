// S g_i of a rank's examples, as often as selection walks over them: kept from the first walk, or computed again.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "selection/consensus.h"
#include "selection/gradient_passes.h"

namespace sage {

class ProjectedGradients {
 public:
  /// `sketch`: S [r, D] on the source's device; products are of its type. `kept_type`: S g of all examples of this rank
  /// is kept in it (float32 or bfloat16: [examples, r]); undefined: every walk computes it again, at the cost of a pass
  /// over the gradients unless the source keeps what they are made of. All must outlive this object.
  ProjectedGradients(const GradientPasses& passes, GradientSource& source, at::Tensor sketch,
                     at::ScalarType kept_type = at::ScalarType::Undefined)
      : passes_(passes), source_(source), sketch_(std::move(sketch)), kept_type_(kept_type) {}

  /// z of one micro-batch; `squared_norms` ([n], float32, ||g||^2) only in the first walk, and only if asked for.
  using Use = std::function<void(const MicroBatch&, const UnitVectors&, const at::Tensor& squared_norms)>;

  /// ALL ranks where selections can be stopped: false if this one was asked to (GradientPasses::project). The first
  /// walk over the examples of this rank, in order.
  [[nodiscard]] bool walk_first(const Use& use, const GradientPasses::UseProbabilities& use_probabilities,
                                bool with_norms);
  /// ALL ranks likewise. A further walk.
  [[nodiscard]] bool walk(const Use& use);

  /// z of the examples at `offsets` (ascending) among those of this rank, zero where it has no direction:
  /// [offsets.size(), r], float32, CPU. Local.
  at::Tensor directions_at(std::span<const std::int64_t> offsets);
  /// r.
  std::int64_t rows() const { return sketch_.size(0); }

 private:
  const GradientPasses& passes_;
  GradientSource& source_;
  at::Tensor sketch_;
  at::ScalarType kept_type_;
  // One large tensor: many small ones that stay while others come and go would leave the heap full of holes.
  at::Tensor kept_;
  std::vector<MicroBatch> batches_;
};

}  // namespace sage
