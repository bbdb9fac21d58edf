// What the first pass over the gradients gathers: Frequent Directions by logical shards, or the exact covariance where
// that is cheaper (D <= 4 ell).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "core/config.h"
#include "core/sketch_state.h"
#include "distributed/communicator.h"
#include "distributed/shard_plan.h"

namespace sage {

/// The sketch size that an `auto` size starts from.
constexpr std::int64_t kAutoStartSize = 32;

/// The sketch size of a configuration: to start with, and the largest it may become.
std::int64_t start_size(const SelectionConfig::Sketch& config);
std::int64_t largest_size(const SelectionConfig::Sketch& config);
/// Whether the exact covariance takes the place of Frequent Directions.
bool is_exact(const SelectionConfig::Sketch& config, std::int64_t dimension);

class GradientSketch {
 public:
  virtual ~GradientSketch() = default;
  /// A writable view [n, D] for at most `rows` gradients.
  virtual at::Tensor claim(std::int64_t rows) = 0;
  /// Enters the first `rows` of it, all finite, with their squared norms ([rows], float64, CPU).
  virtual void commit(std::int64_t rows, const at::Tensor& squared_norms) = 0;
  /// All rows of logical shard `shard` are in. Shards come in ascending order.
  virtual void end_shard(std::int64_t shard) = 0;
  /// ALL ranks, once: the sketch of all shards, the same bytes on every rank.
  virtual SketchState merge(Communicator& communicator) = 0;
};

/// `batch_rows`: the most rows that are claimed at once.
std::unique_ptr<GradientSketch> make_gradient_sketch(const SelectionConfig::Sketch& config, std::int64_t dimension,
                                                     at::Device device, const ShardPlan& plan, std::int64_t batch_rows);

}  // namespace sage
