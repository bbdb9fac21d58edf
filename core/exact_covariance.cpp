#include "core/exact_covariance.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/linear_algebra.h"

namespace sage {

ExactCovariance::ExactCovariance(std::int64_t dimension, at::Device device)
    : covariance_(at::zeros({dimension, dimension}, at::TensorOptions(device).dtype(at::kDouble))) {}

void ExactCovariance::update(const at::Tensor& rows, const at::Tensor& squared_norms) {
  if (rows.dim() != 2 || rows.size(1) != covariance_.size(0)) {
    throw InternalError(fmt::format("a covariance of dimension {} was given rows of {} columns", covariance_.size(0),
                                    rows.dim() == 2 ? rows.size(1) : -1));
  }
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard full_precision;
  const at::Tensor norms = squared_norms.defined() ? squared_norms : row_squared_norms(rows);
  for (std::int64_t i = 0; i < norms.size(0); ++i) {
    if (!std::isfinite(norms.const_data_ptr<double>()[i])) {
      throw TrainingError(fmt::format("row {} of the gradient stream is not finite", rows_seen_ + i));
    }
  }
  covariance_.add_(at::mm(rows.t(), rows));
  rows_seen_ += rows.size(0);
  squared_norm_ += norms.sum().item<double>();
}

void ExactCovariance::merge(const at::Tensor& covariance, std::int64_t rows_seen, double squared_norm) {
  if (covariance.defined()) {
    require(covariance.sizes() == covariance_.sizes(), "ExactCovariance::merge: another dimension");
    covariance_.add_(covariance.to(covariance_.device()));
  }
  rows_seen_ += rows_seen;
  squared_norm_ += squared_norm;
}

SketchState ExactCovariance::state() const {
  const std::int64_t dimension = covariance_.size(0);
  const SymmetricEigen eigen = symmetric_eigen(covariance_.cpu());
  const double* lambda = eigen.values.const_data_ptr<double>();
  std::int64_t kept = 0;
  while (kept < dimension && lambda[kept] > 1e-14 * lambda[0]) ++kept;

  SketchState state;
  state.rule = {dimension, dimension, 0.0, 0};
  state.eigenvalues = eigen.values.narrow(0, 0, kept).clone();
  state.rows = (eigen.vectors.narrow(1, 0, kept) * state.eigenvalues.sqrt())
                   .t()
                   .contiguous()
                   .to(covariance_.device(), at::kFloat);
  state.squared_norm = squared_norm_;
  state.rows_seen = rows_seen_;
  return state;
}

}  // namespace sage
