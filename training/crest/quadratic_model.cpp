#include "training/crest/quadratic_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "training/checkpoint.h"

namespace sage {

void QuadraticModel::fit(const Derivatives& derivatives, const at::Tensor& weights) {
  const at::NoGradGuard no_gradients;
  if (fits_ == 0) {
    gradient_average_ = at::zeros_like(derivatives.gradient);
    square_average_ = at::zeros_like(derivatives.diagonal);
  }
  // New tensors: a checkpoint may be writing the old ones.
  gradient_average_ = gradient_average_.mul(gradient_beta).add_(derivatives.gradient, 1 - gradient_beta);
  square_average_ =
      square_average_.mul(diagonal_beta).addcmul_(derivatives.diagonal, derivatives.diagonal, 1 - diagonal_beta);
  loss_ = derivatives.loss;
  weights_ = weights;
  ++fits_;
}

at::Tensor QuadraticModel::gradient() const {
  require(fits_ > 0, "the quadratic model was not fitted yet");
  return gradient_average_ / (1 - std::pow(gradient_beta, static_cast<double>(fits_)));
}

at::Tensor QuadraticModel::diagonal() const {
  require(fits_ > 0, "the quadratic model was not fitted yet");
  return (square_average_ / (1 - std::pow(diagonal_beta, static_cast<double>(fits_)))).sqrt_().add_(floor_);
}

double QuadraticModel::loss_at(const at::Tensor& weights) const {
  const at::NoGradGuard no_gradients;
  const at::Tensor step = weights - weights_;
  // Products in the vectors' own type, sums in float64.
  const double slope = at::mul(gradient(), step).sum(at::kDouble).item<double>();
  const double curvature = diagonal().mul_(step).mul_(step).sum(at::kDouble).item<double>();
  return loss_ + slope + 0.5 * curvature;
}

std::vector<NamedTensor> QuadraticModel::tensors() const {
  if (fits_ == 0) return {};
  return {{"model.weights", weights_}, {"model.gradient", gradient_average_}, {"model.square", square_average_}};
}

void QuadraticModel::restore(std::span<const NamedTensor> tensors, std::int64_t fits, double loss,
                             std::int64_t dimension, at::Device device) {
  fits_ = fits;
  loss_ = loss;
  if (fits == 0) return;
  const auto options = at::TensorOptions(at::kFloat).device(device);
  weights_ = at::empty({dimension}, options);
  gradient_average_ = at::empty({dimension}, options);
  square_average_ = at::empty({dimension}, options);
  load_tensors(this->tensors(), tensors, "the quadratic model of crest");
}

Adaptation adapt(double first_norm, double norm, double interval_factor, double subset_factor, std::int64_t most) {
  const auto bounded = [most](double value) {
    return static_cast<std::int64_t>(std::clamp(std::ceil(value), 1.0, static_cast<double>(most)));
  };
  Adaptation result;
  result.interval = bounded(interval_factor * first_norm / norm);
  result.coresets = bounded(subset_factor * static_cast<double>(result.interval));
  return result;
}

}  // namespace sage
