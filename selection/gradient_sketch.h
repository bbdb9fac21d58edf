// What the first pass over the gradients gathers: Frequent Directions by logical shards, or the exact covariance where
// that is cheaper (D <= 4 ell).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"
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
  /// Before the first claim() of each logical shard that has not ended. Shards come in ascending order.
  virtual void begin_shard(std::int64_t shard) = 0;
  /// A writable view [n, D] for at most `rows` gradients.
  virtual at::Tensor claim(std::int64_t rows) = 0;
  /// Enters the first `rows` of it, all finite, with their squared norms ([rows], float64, CPU).
  virtual void commit(std::int64_t rows, const at::Tensor& squared_norms) = 0;
  /// All rows of logical shard `shard` are in.
  virtual void end_shard(std::int64_t shard) = 0;
  /// ALL ranks, once: the sketch of all shards, the same bytes on every rank.
  virtual SketchState merge(Communicator& communicator) = 0;

  /// All that is in, between two commits, to the last bit; names differ between ranks.
  virtual std::vector<NamedTensor> save() const = 0;
  /// ALL ranks, before anything is in, with each tensor that any rank, of whatever number, saved: takes it in where it
  /// is this rank's business. Throws CheckpointError for what does not fit.
  virtual void restore(const std::string& name, const at::Tensor& tensor) = 0;
  /// After the last restore(): throws CheckpointError unless what came fits `rows_done` of each shard
  /// (SelectionProgress).
  virtual void check_restored(std::span<const std::int64_t> rows_done) = 0;
};

/// `batch_rows`: the most rows that are claimed at once.
std::unique_ptr<GradientSketch> make_gradient_sketch(const SelectionConfig::Sketch& config, std::int64_t dimension,
                                                     at::Device device, const ShardPlan& plan, int rank,
                                                     std::int64_t batch_rows);
/// A finished sketch as tensors `PREFIX.rows`, `PREFIX.eigenvalues` and `PREFIX.numbers`.
std::vector<NamedTensor> to_tensors(const SketchState& state, const std::string& prefix);
/// Takes one of these tensors into `state`, whose rows are to be on `device`. Throws CheckpointError for anything else.
void take_tensor(SketchState& state, const std::string& part, const at::Tensor& tensor, at::Device device);
/// Throws CheckpointError unless `state` is a whole sketch of rows of `dimension` columns.
void check_sketch(const SketchState& state, std::int64_t dimension);

}  // namespace sage
