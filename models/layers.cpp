#include "models/layers.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <torch/csrc/autograd/custom_function.h>
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "models/example_kernels.h"

namespace sage {
namespace {

/// Most elements of scratch that Linear's projection takes at once: it bounds memory, and being a constant it keeps the
/// order of the additions, hence the bits, the same everywhere.
constexpr std::int64_t projection_scratch_elements = std::int64_t{1} << 22;

/// Most elements of convolution gradients that its projection makes at once, where that is at least 8 output channels:
/// a few MiB instead of all of a large layer, and part of it is still in the cache when it is multiplied.
constexpr std::int64_t gradient_scratch_elements = std::int64_t{1} << 20;

/// Fills `parameter` in the order of a contiguous tensor, whatever its layout, type and device.
template <class Draw>
void fill(const at::Tensor& parameter, std::uint64_t seed, const std::string& name, Draw draw) {
  const at::NoGradGuard no_grad;
  RandomStream stream(seed, "init/" + name);
  at::Tensor values = at::empty(parameter.sizes(), at::kFloat);
  float* value = values.data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) value[i] = static_cast<float>(draw(stream));
  parameter.copy_(values);
}

void fill_uniform(const at::Tensor& parameter, std::uint64_t seed, const std::string& name, double bound) {
  fill(parameter, seed, name, [bound](RandomStream& stream) { return bound * (2.0 * stream.uniform() - 1.0); });
}

void fill_normal(const at::Tensor& parameter, std::uint64_t seed, const std::string& name, double deviation) {
  fill(parameter, seed, name, [deviation](RandomStream& stream) { return deviation * stream.normal(); });
}

}  // namespace

// ---- Layer ----

at::Tensor Layer::forward(const at::Tensor& input) {
  if (observer_ == nullptr) return compute(input, *weight_, bias());
  at::Tensor output = compute(input, weight_->detach(), has_bias() ? bias_->detach() : at::Tensor());
  return observer_->observe(*this, input, std::move(output));
}

const at::Tensor& Layer::bias() const {
  static const at::Tensor none;
  return bias_ == nullptr ? none : *bias_;
}

void Layer::register_weight_and_bias(at::Tensor weight, at::Tensor bias) {
  weight_ = &register_parameter("weight", std::move(weight));
  if (bias.defined()) bias_ = &register_parameter("bias", std::move(bias));
}

void Layer::write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                   at::Tensor columns) const {
  const at::NoGradGuard no_grad;
  columns.copy_(weight_gradients(input, output_gradient));
}

void Layer::project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                     const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const {
  const at::NoGradGuard no_grad;
  const at::Tensor gradients = weight_gradients(input, output_gradient);
  projected.addmm_(gradients, block.t());
  if (squared_norms.defined()) {
    // Norms of the weight's first dimension apart, then their squares' sum: short sums lose less in float32, and no
    // second [B, weight.numel()] is made.
    const at::Tensor parts =
        at::linalg_vector_norm(gradients.view({gradients.size(0), weight().size(0), -1}), 2.0, at::IntArrayRef{2});
    squared_norms.add_(parts.square().sum(1));
  }
}

// ---- Linear ----

Linear::Linear(std::int64_t inputs, std::int64_t outputs, bool with_bias) {
  register_weight_and_bias(at::zeros({outputs, inputs}), with_bias ? at::zeros({outputs}) : at::Tensor());
}

void Linear::initialize(std::uint64_t seed, const std::string& prefix) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(weight().size(1)));
  fill_uniform(weight(), seed, prefix + ".weight", bound);
  if (has_bias()) fill_uniform(bias(), seed, prefix + ".bias", bound);
}

at::Tensor Linear::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  require(input.dim() == 2, "Linear takes [B, inputs]");
  return at::linear(input, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

at::Tensor Linear::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  return at::mul(output_gradient.unsqueeze(2), input.unsqueeze(1)).flatten(1);
}

at::Tensor Linear::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  return output_gradient.detach();
}

void Linear::write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                    at::Tensor columns) const {
  const at::NoGradGuard no_grad;
  at::Tensor target = columns.unflatten(1, {weight().size(0), weight().size(1)});
  at::mul_out(target, output_gradient.unsqueeze(2), input.unsqueeze(1));
}

void Linear::project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                      const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), inputs = weight().size(1);
  const std::int64_t sketch_rows = block.size(0);
  // z[b, e] = sum over c of r[b, c] (sum over f of S[e, c, f] h[b, f]), the inner sums as one batched product over c.
  const at::Tensor by_output = block.unflatten(1, {outputs, inputs}).permute({1, 2, 0});  // a view, [C, F, ell]
  const std::int64_t step = std::clamp<std::int64_t>(
      projection_scratch_elements / std::max<std::int64_t>(1, batch * sketch_rows), 1, outputs);
  for (std::int64_t first = 0; first < outputs; first += step) {
    const std::int64_t count = std::min(step, outputs - first);
    const at::Tensor inner =
        at::bmm(input.unsqueeze(0).expand({count, batch, inputs}), by_output.narrow(0, first, count));
    projected.add_(at::bmm(output_gradient.narrow(1, first, count).unsqueeze(1), inner.transpose(0, 1)).squeeze(1));
  }
  if (squared_norms.defined()) squared_norms.add_(output_gradient.square().sum(1) * input.square().sum(1));
}

// ---- Conv2d ----

Conv2d::Conv2d(std::int64_t inputs, std::int64_t outputs, const ConvolutionOptions& options) : options_(options) {
  require(options.groups >= 1 && inputs % options.groups == 0 && outputs % options.groups == 0,
          "a convolution's groups must divide its input and output channels");
  register_weight_and_bias(at::zeros({outputs, inputs / options.groups, options.kernel, options.kernel}),
                           options.bias ? at::zeros({outputs}) : at::Tensor());
}

void Conv2d::initialize(std::uint64_t seed, const std::string& prefix) {
  const double window = static_cast<double>(options_.kernel * options_.kernel);
  const double fan_in = static_cast<double>(weight().size(1)) * window;
  // As PyTorch counts it: the weight's first dimension times the window, whatever the number of groups.
  const double fan_out = static_cast<double>(weight().size(0)) * window;
  const double fan = options_.init == ConvolutionInit::kaiming_fan_out ? fan_out : fan_in;
  fill_normal(weight(), seed, prefix + ".weight", std::sqrt(2.0 / fan));
  if (has_bias()) fill_uniform(bias(), seed, prefix + ".bias", 1.0 / std::sqrt(fan_in));
}

at::Tensor Conv2d::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  const std::int64_t stride = options_.stride, padding = options_.padding, dilation = options_.dilation;
  return at::conv2d(input, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, {stride, stride},
                    at::IntArrayRef{padding, padding}, {dilation, dilation}, options_.groups);
}

at::Tensor Conv2d::unfold(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const std::int64_t batch = input.size(0), channels = input.size(1), kernel = options_.kernel;
  const std::int64_t height = output_gradient.size(2), width = output_gradient.size(3);
  const std::int64_t padding = options_.padding, stride = options_.stride, dilation = options_.dilation;
  const at::Tensor padded = padding == 0 ? input : at::constant_pad_nd(input, {padding, padding, padding, padding}, 0);
  const std::int64_t step_y = padded.stride(2), step_x = padded.stride(3);
  // A view with overlapping windows, [B, channels, kernel, kernel, height, width]; reshape copies it once (not at all
  // for 1x1 windows of stride 1 over contiguous channels).
  const at::Tensor windows = padded.as_strided(
      {batch, channels, kernel, kernel, height, width},
      {padded.stride(0), padded.stride(1), dilation * step_y, dilation * step_x, stride * step_y, stride * step_x},
      padded.storage_offset());
  return windows.reshape({batch * options_.groups, channels / options_.groups * kernel * kernel, height * width});
}

bool Conv2d::has_kernel_for(const at::Tensor& input) const {
  return input.device().is_cpu() && input.scalar_type() == at::kFloat && options_.dilation == 1;
}

void Conv2d::run_kernel(const at::Tensor& input, const at::Tensor& output_gradient, std::int64_t first,
                        std::int64_t last, at::Tensor columns) const {
  const ConvolutionShape shape{.inputs = weight().size(1),
                               .outputs = weight().size(0) / options_.groups,
                               .groups = options_.groups,
                               .height = input.size(2),
                               .width = input.size(3),
                               .output_height = output_gradient.size(2),
                               .output_width = output_gradient.size(3),
                               .kernel = options_.kernel,
                               .stride = options_.stride,
                               .padding = options_.padding};
  const float* from = input.const_data_ptr<float>();
  const float* gradient = output_gradient.const_data_ptr<float>();
  float* to = columns.mutable_data_ptr<float>();
  const std::int64_t input_step = input[0].numel(), gradient_step = output_gradient[0].numel();
  const std::int64_t step = columns.stride(0);
  at::parallel_for(0, input.size(0), 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch(static_cast<std::size_t>(scratch_size(shape)));
    for (std::int64_t b = begin; b < end; ++b) {
      convolution_weight_gradient(shape, first, last, from + b * input_step, gradient + b * gradient_step,
                                  to + b * step, scratch.data());
    }
  });
}

at::Tensor Conv2d::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), groups = options_.groups;
  if (has_kernel_for(input)) {
    at::Tensor result = at::empty({batch, weight().numel()}, input.options(), at::MemoryFormat::Contiguous);
    write_weight_gradients(input, output_gradient, result);
    return result;
  }
  // One product per example and group: other pairs of groups do not exist in the weight.
  const at::Tensor windows = unfold(input, output_gradient);
  const at::Tensor gradient = output_gradient.reshape({batch * groups, outputs / groups, -1});
  return at::bmm(gradient, windows.transpose(1, 2)).view({batch, -1});
}

void Conv2d::write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                    at::Tensor columns) const {
  const at::NoGradGuard no_grad;
  if (!has_kernel_for(input) || columns.scalar_type() != at::kFloat) {
    columns.copy_(weight_gradients(input, output_gradient));
  } else if (input.size(0) > 0) {
    run_kernel(input.contiguous(at::MemoryFormat::ChannelsLast),
               output_gradient.contiguous(at::MemoryFormat::ChannelsLast), 0, weight().size(0), columns);
  }
}

void Conv2d::project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                      const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), window = weight()[0].numel();
  if (!has_kernel_for(input) || batch == 0) {
    return Layer::project_weight_gradients(input, output_gradient, block, projected, squared_norms);
  }
  const at::Tensor inputs = input.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor gradients = output_gradient.contiguous(at::MemoryFormat::ChannelsLast);
  const std::int64_t fitting = std::max<std::int64_t>(8, gradient_scratch_elements / (batch * window) / 8 * 8);
  const std::int64_t step = std::min(fitting, outputs);
  const at::Tensor room = at::empty({batch * step * window}, inputs.options(), at::MemoryFormat::Contiguous);
  for (std::int64_t first = 0; first < outputs; first += step) {
    const std::int64_t count = std::min(step, outputs - first);
    const at::Tensor columns = room.narrow(0, 0, batch * count * window).view({batch, count * window});
    run_kernel(inputs, gradients, first, first + count, columns);
    projected.addmm_(columns, block.narrow(1, first * window, count * window).t());
    if (squared_norms.defined()) squared_norms.add_(columns.square().sum(1));
  }
}

at::Tensor Conv2d::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  return output_gradient.sum(at::IntArrayRef{2, 3});
}

// ---- BatchNorm2d ----

namespace {
constexpr double batch_norm_momentum = 0.1;
constexpr double batch_norm_epsilon = 1e-5;
}  // namespace

at::Tensor local_batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& running_mean, const at::Tensor& running_var, double momentum,
                            double eps) {
  return at::batch_norm(input, weight, bias, running_mean, running_var, /*training=*/true, momentum, eps,
                        /*cudnn_enabled=*/true);
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

// ---- All layers of a model ----

std::vector<std::pair<std::string, Layer*>> named_layers(Module& root) {
  std::vector<std::pair<std::string, Layer*>> result;
  for (const auto& [name, module] : root.named_modules()) {
    if (auto* layer = dynamic_cast<Layer*>(module)) result.emplace_back(name, layer);
  }
  return result;
}

void initialize_parameters(Module& root, std::uint64_t seed) {
  for (const auto& [name, layer] : named_layers(root)) layer->initialize(seed, name);
}

}  // namespace sage
