// The direction that the gradients of a class agree on.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// Projected gradients of a batch brought to unit length.
struct UnitVectors {
  at::Tensor directions;         ///< [n, r], float32: z_i = S g_i / ||S g_i||, zero where degenerate
  std::vector<bool> degenerate;  ///< n: S g_i is zero or not finite
};
UnitVectors to_unit_length(const at::Tensor& projected);

/// u_c = sum of z_i over class c on all ranks, normalised: SAGE (arXiv 2510.02470), section 3. Sums are float64, on the
/// CPU, so that the number of ranks does not matter beyond the last bits.
class Consensus {
 public:
  /// `per_class` false: one direction for all classes.
  Consensus(std::int64_t class_count, std::int64_t rows, bool per_class);

  /// Adds unit vectors [n, r] of examples labelled `labels`. Local.
  void add(const UnitVectors& vectors, std::span<const std::int64_t> labels);
  /// ALL ranks, once: sums over ranks and normalises. A class without a direction keeps the zero vector.
  void reduce(Communicator& communicator);

  /// a_i = <z_i, u_{y_i}>, in [-1, 1]; `lowest` for degenerate examples. After reduce().
  std::vector<float> agreement(const UnitVectors& vectors, std::span<const std::int64_t> labels, float lowest) const;
  /// [classes or 1, r], float64, CPU: rows of unit length or zero. After reduce().
  const at::Tensor& directions() const { return sums_; }
  /// Length of the mean unit vector of each class: 1 where all agree, near 0 where they cancel. After reduce().
  const std::vector<double>& strength() const { return strength_; }

 private:
  bool per_class_;
  at::Tensor sums_;    // [classes, r], float64, CPU
  at::Tensor counts_;  // [classes], float64, CPU
  std::vector<double> strength_;
};

/// ALL ranks: Communicator::all_reduce_sum for a tensor on any device, in place.
void all_reduce_sum_anywhere(Communicator& communicator, at::Tensor tensor);

}  // namespace sage
