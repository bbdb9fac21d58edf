// The quadratic function that stands for the loss around the weights of a selection.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/named_tensor.h"

namespace sage {

/// What a fit measures: means over its mini-batches.
struct Derivatives {
  double loss = 0.0;
  at::Tensor gradient;  ///< [D]
  at::Tensor diagonal;  ///< [D]: Hutchinson's estimate of the Hessian's diagonal
};

/// F(delta) = loss + g . delta + 1/2 delta . (H * delta) with the step delta since the last fit. Gradient and diagonal
/// are exponential averages over the fits, g of the gradients (beta 0.9), H the root of that of the squared diagonals
/// (beta 0.999), both divided by 1 - beta^fits, as in AdaHessian (Yao et al., AAAI 2021); `floor` is added to H. Holds
/// three vectors [D].
class QuadraticModel {
 public:
  static constexpr double gradient_beta = 0.9, diagonal_beta = 0.999, standard_floor = 1e-4;
  explicit QuadraticModel(double floor = standard_floor) : floor_(floor) {}

  /// A fit at `weights` [D]; kept, not copied.
  void fit(const Derivatives& derivatives, const at::Tensor& weights);
  std::int64_t fits() const { return fits_; }
  /// Of the loss at `weights`, after a fit.
  double loss_at(const at::Tensor& weights) const;
  at::Tensor gradient() const;  ///< g [D]
  at::Tensor diagonal() const;  ///< H [D]

  /// The live tensors, and what goes with them.
  std::vector<NamedTensor> tensors() const;
  double loss() const { return loss_; }
  /// Goes on from there. Throws CheckpointError unless `tensors` holds what tensors() gives, for D = `dimension`.
  void restore(std::span<const NamedTensor> tensors, std::int64_t fits, double loss, std::int64_t dimension,
               at::Device device);

 private:
  double floor_;
  std::int64_t fits_ = 0;
  double loss_ = 0.0;
  at::Tensor weights_, gradient_average_, square_average_;
};

/// The number of steps between checks, or of random sets, that follows from a fit.
struct Adaptation {
  std::int64_t interval = 1, coresets = 1;
  bool operator==(const Adaptation&) const = default;
};
/// T1 = min(ceil(h ||H_0|| / ||H_t||), most), P = min(ceil(b T1), most), both at least 1; `most`: steps of a short
/// epoch.
Adaptation adapt(double first_norm, double norm, double interval_factor, double subset_factor, std::int64_t most);

}  // namespace sage
