#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/slice.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "models/example_kernels.h"
#include "models/layers.h"

namespace sage {
namespace {

/// Most elements of convolution gradients that its projection makes at once, where that is at least 8 output channels:
/// a few MiB instead of all of a large layer, and part of it is still in the cache when it is multiplied.
constexpr std::int64_t gradient_scratch_elements = std::int64_t{1} << 20;

}  // namespace

Conv2d::Conv2d(std::int64_t inputs, std::int64_t outputs, const ConvolutionOptions& options) : options_(options) {
  require(options.groups >= 1 && inputs % options.groups == 0 && outputs % options.groups == 0,
          "a convolution's groups must divide its input and output channels");
  register_weight_and_bias(at::zeros({outputs, inputs / options.groups, options.kernel, options.kernel}),
                           options.bias ? at::zeros({outputs}) : at::Tensor());
}

void Conv2d::initialize(std::uint64_t seed, const std::string& layer) {
  const double window = static_cast<double>(options_.kernel * options_.kernel);
  const double fan_in = static_cast<double>(weight().size(1)) * window;
  // As PyTorch counts it: the weight's first dimension times the window, whatever the number of groups.
  const double fan_out = static_cast<double>(weight().size(0)) * window;
  Start values{Start::Law::normal, std::sqrt(2.0 / fan_out)};
  if (options_.init == ConvolutionInit::kaiming_fan_in) values.scale = std::sqrt(2.0 / fan_in);
  if (options_.init == ConvolutionInit::lecun) values = {Start::Law::truncated_normal, 1.0 / std::sqrt(fan_in)};
  start(weight(), values, seed, weight_name(layer));
  const Start usual{Start::Law::uniform, 1.0 / std::sqrt(fan_in)};
  if (has_bias()) start(bias(), options_.bias_start.value_or(usual), seed, bias_name(layer));
}

at::Tensor Conv2d::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  const std::int64_t stride = options_.stride, padding = options_.padding, dilation = options_.dilation;
  if (input.size(2) == 1 && input.size(3) == 1 && padding > 0 && options_.kernel % 2 == 1 &&
      2 * padding == dilation * (options_.kernel - 1)) {
    // Only the centre of the window meets the image. Besides being less work, this keeps away from a fault of oneDNN in
    // LibTorch 2.11: the bfloat16 weight gradient of a depthwise convolution of stride 2 in channels_last layout holds
    // whatever was in memory where no pixel meets the window.
    const std::int64_t centre = options_.kernel / 2;
    const std::array<std::int64_t, 2> none{0, 0}, one{1, 1};
    return at::conv2d(input, weight.slice(2, centre, centre + 1).slice(3, centre, centre + 1),
                      bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt, {stride, stride}, none, one,
                      options_.groups);
  }
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

at::Tensor Conv2d::depthwise_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const std::int64_t kernel = options_.kernel, stride = options_.stride, padding = options_.padding;
  const std::int64_t height = output_gradient.size(2), width = output_gradient.size(3);
  const at::Tensor padded = padding == 0 ? input : at::constant_pad_nd(input, {padding, padding, padding, padding}, 0);
  at::Tensor result =
      at::empty({input.size(0), input.size(1), kernel, kernel}, input.options(), at::MemoryFormat::Contiguous);
  for (std::int64_t y = 0; y < kernel; ++y) {
    for (std::int64_t x = 0; x < kernel; ++x) {
      const at::Tensor seen =
          padded.slice(2, y, y + stride * (height - 1) + 1, stride).slice(3, x, x + stride * (width - 1) + 1, stride);
      result.select(3, x).select(2, y).copy_((seen * output_gradient).sum(at::IntArrayRef{2, 3}));
    }
  }
  return result.flatten(1);
}

at::Tensor Conv2d::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), groups = options_.groups;
  if (has_kernel_for(input)) {
    at::Tensor result = at::empty({batch, weight().numel()}, input.options(), at::MemoryFormat::Contiguous);
    write_weight_gradients(input, output_gradient, result);
    return result;
  }
  if (is_depthwise() && options_.dilation == 1) return depthwise_gradients(input, output_gradient);
  // One product per example and group: other pairs of groups do not exist in the weight.
  const at::Tensor windows = unfold(input, output_gradient);
  const at::Tensor gradient = output_gradient.reshape({batch * groups, outputs / groups, -1});
  return at::bmm(gradient, windows.transpose(1, 2)).view({batch, weight().numel()});
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
    add_product(projected, columns, block.narrow(1, first * window, count * window));
    if (squared_norms.defined()) squared_norms.add_(columns.square().sum(1));
  }
}

at::Tensor Conv2d::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  return output_gradient.sum(at::IntArrayRef{2, 3});
}

}  // namespace sage
