#include "models/layers.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

/// Most elements of scratch that Linear's projection takes at once: it bounds memory, and being a constant it keeps the
/// order of the additions, hence the bits, the same everywhere.
constexpr std::int64_t projection_scratch_elements = std::int64_t{1} << 22;

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

at::Tensor Conv2d::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), groups = options_.groups;
  // One product per example and group: other pairs of groups do not exist in the weight.
  const at::Tensor windows = unfold(input, output_gradient);
  const at::Tensor gradient = output_gradient.reshape({batch * groups, outputs / groups, -1});
  return at::bmm(gradient, windows.transpose(1, 2)).view({batch, -1});
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

at::Tensor BatchNorm2d::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
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
  const auto per_channel = [](const at::Tensor& values) { return values.view({1, -1, 1, 1}); };
  // Centred before the sum: sum(b a) - mean sum(b) would cancel.
  at::Tensor product = input - per_channel(*running_mean_);
  product.mul_(output_gradient);
  return product.sum(at::IntArrayRef{2, 3}) * at::rsqrt(*running_var_ + batch_norm_epsilon);
}

at::Tensor BatchNorm2d::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
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
