#include "training/loss_scaler.h"

#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/linalg_vector_norm.h>

namespace sage {
namespace {
constexpr double growth_factor = 2.0, backoff_factor = 0.5;
constexpr std::int64_t growth_interval = 2000;
}  // namespace

LossScaler::LossScaler(bool scaling, double initial_scale, at::Device device)
    : scaling_(scaling),
      status_(at::zeros({2}, at::TensorOptions(at::kFloat).device(device))),
      found_inf_(status_.narrow(0, 0, 1)),
      scale_(status_.narrow(0, 1, 1)),
      growth_(at::zeros({1}, at::TensorOptions(at::kInt).device(device))),
      one_(at::ones({1}, at::TensorOptions(at::kFloat).device(device))) {
  scale_.fill_(scaling ? initial_scale : 1.0);
}

at::Tensor LossScaler::seed(const at::Tensor& loss, double factor) const {
  const at::NoGradGuard no_gradients;
  // 0 x NaN and 0 x infinity are NaN.
  const at::Tensor plain = loss.detach() * 0.0 + factor;
  return scaling_ ? plain * scale_[0] : plain;
}

void LossScaler::unscale(std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard no_gradients;
  found_inf_.zero_();
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, found_inf_, scaling_ ? scale_.reciprocal() : one_);
}

void LossScaler::update() {
  const at::NoGradGuard no_gradients;
  if (scaling_) at::_amp_update_scale_(scale_, growth_, found_inf_, growth_factor, backoff_factor, growth_interval);
}

std::vector<NamedTensor> LossScaler::state() const {
  if (!scaling_) return {};
  return {{"scaler.scale", scale_}, {"scaler.growth", growth_}};
}

void clip_gradients(std::vector<at::Tensor>& gradients, double largest_norm) {
  const at::NoGradGuard no_gradients;
  const at::Tensor norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients)));
  at::_foreach_mul_(gradients, (largest_norm / (norm + 1e-6)).clamp_max(1.0));
}

}  // namespace sage
