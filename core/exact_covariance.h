// The exact D x D matrix A^T A of a stream of rows: cheaper than a sketch where D <= 4 ell, and an oracle for tests.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/sketch_state.h"

namespace sage {

class ExactCovariance {
 public:
  ExactCovariance(std::int64_t dimension, at::Device device);

  /// Adds rows [n, D]: products in the rows' type, summed in float64. `squared_norms` ([n], float64, CPU) as in
  /// FrequentDirections::commit; a row that is not finite is a TrainingError that names its position.
  void update(const at::Tensor& rows, const at::Tensor& squared_norms = {});

  /// Adds what another one has seen: its covariance() (any device; may be undefined: nothing) and its counts.
  void merge(const at::Tensor& covariance, std::int64_t rows_seen, double squared_norm);

  /// The sum so far: [D, D], float64. Live: an all-reduce over ranks sums it in place.
  at::Tensor& covariance() { return covariance_; }
  const at::Tensor& covariance() const { return covariance_; }
  std::int64_t rows_seen() const { return rows_seen_; }
  double squared_norm() const { return squared_norm_; }  ///< ||A||_F^2

  /// S = sqrt(Lambda) V^T of covariance() = V Lambda V^T, float32, with error bound 0.
  SketchState state() const;

 private:
  at::Tensor covariance_;
  std::int64_t rows_seen_ = 0;
  double squared_norm_ = 0.0;
};

}  // namespace sage
