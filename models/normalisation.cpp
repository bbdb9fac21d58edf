#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "models/example_kernels.h"
#include "models/layers.h"

namespace sage {

namespace {
constexpr double batch_norm_momentum = 0.1;
constexpr double batch_norm_epsilon = 1e-5;
constexpr double layer_norm_epsilon = 1e-6;
}  // namespace

at::Tensor local_batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& running_mean, const at::Tensor& running_var, double momentum,
                            double eps) {
  // One value says nothing of a variance (LibTorch's estimate would divide by 0): the running one stays.
  const bool is_one_value = input.numel() == input.size(1) && running_var.defined();
  return at::batch_norm(input, weight, bias, running_mean, is_one_value ? running_var.clone() : running_var,
                        /*training=*/true, momentum, eps, /*cudnn_enabled=*/true);
}

BatchNorm2d::BatchNorm2d(std::int64_t channels, BatchNormFunction train_function)
    : train_function_(train_function ? std::move(train_function) : BatchNormFunction(local_batch_norm)) {
  register_weight_and_bias(at::ones({channels}), at::zeros({channels}));
  running_mean_ = &register_buffer("running_mean", at::zeros({channels}));
  running_var_ = &register_buffer("running_var", at::ones({channels}));
  num_batches_tracked_ = &register_buffer("num_batches_tracked", at::zeros({}, at::kLong));
}

void BatchNorm2d::initialize(std::uint64_t, const std::string&) {
  const at::NoGradGuard no_grad;
  weight().fill_(1.0);
  bias().zero_();
  running_mean_->zero_();
  running_var_->fill_(1.0);
  num_batches_tracked_->zero_();
}

namespace {

bool has_channel_kernel(const at::Tensor& values) {
  return values.device().is_cpu() && values.scalar_type() == at::kFloat;
}

/// channel_sums() of each example: [B, channels] of `output_gradient`, or, with an input, of (input - center) times it.
at::Tensor sums_over_pixels(const at::Tensor& input, const at::Tensor& center, const at::Tensor& output_gradient) {
  const bool of_products = input.defined();
  const auto held = [](const at::Tensor& values) { return values.contiguous(at::MemoryFormat::ChannelsLast); };
  const at::Tensor gradients = held(output_gradient), inputs = of_products ? held(input) : at::Tensor();
  const at::Tensor centers = of_products ? center.contiguous() : at::Tensor();
  const std::int64_t batch = gradients.size(0), channels = gradients.size(1);
  const std::int64_t pixels = gradients.size(2) * gradients.size(3);
  at::Tensor sums = at::empty({batch, channels}, gradients.options(), at::MemoryFormat::Contiguous);
  at::Tensor products = of_products ? at::empty_like(sums) : at::Tensor();
  const float* gradient = gradients.const_data_ptr<float>();
  const float* from = of_products ? inputs.const_data_ptr<float>() : nullptr;
  const float* middle = of_products ? centers.const_data_ptr<float>() : nullptr;
  float* sum = sums.mutable_data_ptr<float>();
  float* product = of_products ? products.mutable_data_ptr<float>() : nullptr;
  at::parallel_for(0, batch, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      channel_sums(pixels, channels, of_products ? from + b * pixels * channels : nullptr, middle,
                   gradient + b * pixels * channels, sum + b * channels,
                   of_products ? product + b * channels : nullptr);
    }
  });
  return of_products ? products : sums;
}

/// Batch normalisation in eval mode where the parameters take no part in autograd: backward only scales each channel,
/// while the library's computes the sums for the parameters' gradients all the same.
class EvalBatchNorm : public torch::autograd::Function<EvalBatchNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& input,
                            const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean,
                            const at::Tensor& variance) {
    context->save_for_backward({weight * at::rsqrt(variance + batch_norm_epsilon)});
    return at::batch_norm(input, weight, bias, mean, variance, /*training=*/false, batch_norm_momentum,
                          batch_norm_epsilon, /*cudnn_enabled=*/false);
  }
  static std::vector<at::Tensor> backward(torch::autograd::AutogradContext* context,
                                          const std::vector<at::Tensor>& output_gradients) {
    const at::Tensor gradient = output_gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor scale = context->get_saved_variables()[0].contiguous();
    const at::Tensor result = at::empty_like(gradient);
    const std::int64_t channels = gradient.size(1), pixels = gradient.size(2) * gradient.size(3);
    const float* from = gradient.const_data_ptr<float>();
    const float* factor = scale.const_data_ptr<float>();
    float* to = result.mutable_data_ptr<float>();
    at::parallel_for(0, gradient.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      const std::int64_t offset = first * pixels * channels;
      scale_channels((last - first) * pixels, channels, from + offset, factor, to + offset);
    });
    return {result, {}, {}, {}, {}};
  }
};

/// In eval mode, of single operations: the fused ones have no rule for forward-mode differentiation of their backward
/// pass, which second derivatives are taken by (training/crest/hutchinson.h).
at::Tensor eval_batch_norm_by_operations(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                                         const at::Tensor& mean, const at::Tensor& variance) {
  const auto of_channels = [](const at::Tensor& values) { return values.view({1, -1, 1, 1}); };
  const at::Tensor scale = weight * at::rsqrt(variance + batch_norm_epsilon);
  return input * of_channels(scale) + of_channels(bias - mean * scale);
}

bool has_tangent(const at::Tensor& values) { return values._fw_grad(/*level=*/0).defined(); }

}  // namespace

at::Tensor BatchNorm2d::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  if (!is_training() && input.requires_grad() && !weight.requires_grad() && has_channel_kernel(input)) {
    return EvalBatchNorm::apply(input, weight, bias, *running_mean_, *running_var_);
  }
  if (!is_training() && has_tangent(weight)) {
    return eval_batch_norm_by_operations(input, weight, bias, *running_mean_, *running_var_);
  }
  if (!is_training()) {
    return at::batch_norm(input, weight, bias, *running_mean_, *running_var_, /*training=*/false, batch_norm_momentum,
                          batch_norm_epsilon, /*cudnn_enabled=*/true);
  }
  num_batches_tracked_->add_(1);
  return train_function_(input, weight, bias, *running_mean_, *running_var_, batch_norm_momentum, batch_norm_epsilon);
}

at::Tensor BatchNorm2d::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  require(!is_training(), "per-example gradients of a BatchNorm2d exist in eval mode only");
  const at::NoGradGuard no_grad;
  // Centred before the sum: sum(b a) - mean sum(b) would cancel.
  at::Tensor sums;
  if (has_channel_kernel(input)) {
    sums = sums_over_pixels(input, *running_mean_, output_gradient);
  } else {
    at::Tensor product = input - running_mean_->view({1, -1, 1, 1});
    sums = product.mul_(output_gradient).sum(at::IntArrayRef{2, 3});
  }
  return sums * at::rsqrt(*running_var_ + batch_norm_epsilon);
}

at::Tensor BatchNorm2d::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  if (has_channel_kernel(output_gradient)) return sums_over_pixels({}, {}, output_gradient);
  return output_gradient.sum(at::IntArrayRef{2, 3});
}

// ---- LayerNorm ----

LayerNorm::LayerNorm(std::int64_t width) { register_weight_and_bias(at::ones({width}), at::zeros({width})); }

void LayerNorm::initialize(std::uint64_t, const std::string&) {
  const at::NoGradGuard no_grad;
  weight().fill_(1.0);
  bias().zero_();
}

at::Tensor LayerNorm::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  return at::layer_norm(input, weight.sizes(), weight, bias, layer_norm_epsilon);
}

at::Tensor LayerNorm::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  const at::Tensor products = at::layer_norm(input, weight().sizes(), {}, {}, layer_norm_epsilon) * output_gradient;
  return products.dim() == 3 ? products.sum(1) : products;
}

at::Tensor LayerNorm::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  return output_gradient.dim() == 3 ? output_gradient.sum(1) : output_gradient.detach();
}

}  // namespace sage
