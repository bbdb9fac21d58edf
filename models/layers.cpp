#include "models/layers.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mul.h>
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

std::string dotted(const std::string& layer, const std::string& name) {
  return name.empty() ? layer : layer + "." + name;
}

/// One draw of `values`.
double draw(const Start& values, RandomStream& stream) {
  switch (values.law) {
    case Start::Law::constant:
      break;
    case Start::Law::uniform:
      return values.scale * (2.0 * stream.uniform() - 1.0);
    case Start::Law::normal:
      return values.scale * stream.normal();
    case Start::Law::truncated_normal: {
      double drawn = values.scale * stream.normal();
      while (std::abs(drawn) > 2.0) drawn = values.scale * stream.normal();
      return drawn;
    }
  }
  return values.scale;
}

}  // namespace

void start(const at::Tensor& parameter, const Start& values, std::uint64_t seed, const std::string& name) {
  const at::NoGradGuard no_grad;
  if (values.law == Start::Law::constant) {
    at::Tensor(parameter).fill_(values.scale);
    return;
  }
  RandomStream stream(seed, "init/" + name);
  at::Tensor drawn = at::empty(parameter.sizes(), at::kFloat);
  float* value = drawn.data_ptr<float>();
  for (std::int64_t i = 0; i < drawn.numel(); ++i) value[i] = static_cast<float>(draw(values, stream));
  parameter.copy_(drawn);
}

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

std::string Layer::weight_name(const std::string& layer) const { return dotted(layer, weight_name_); }
std::string Layer::bias_name(const std::string& layer) const { return dotted(layer, bias_name_); }

void Layer::register_weight_and_bias(at::Tensor weight, at::Tensor bias, std::string weight_name,
                                     std::string bias_name) {
  weight_name_ = std::move(weight_name);
  bias_name_ = std::move(bias_name);
  weight_ = &register_parameter(weight_name_, std::move(weight));
  if (bias.defined()) bias_ = &register_parameter(bias_name_, std::move(bias));
}

at::Tensor Layer::bias_gradients(const at::Tensor&, const at::Tensor&) const {
  throw InternalError("the gradient of a bias was asked of a layer without one");
}

void Layer::write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                   at::Tensor columns) const {
  const at::NoGradGuard no_grad;
  columns.copy_(weight_gradients(input, output_gradient));
}

void add_product(at::Tensor projected, const at::Tensor& gradients, const at::Tensor& block) {
  if (block.scalar_type() == gradients.scalar_type()) {
    projected.addmm_(gradients, block.t());
  } else {
    projected.add_(at::mm(gradients.to(block.scalar_type()), block.t()));
  }
}

void Layer::project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                     const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const {
  const at::NoGradGuard no_grad;
  const at::Tensor gradients = weight_gradients(input, output_gradient);
  add_product(projected, gradients, block);
  if (squared_norms.defined()) {
    // Norms of the weight's first dimension apart, then their squares' sum: short sums lose less in float32, and no
    // second [B, weight.numel()] is made.
    const at::Tensor parts = at::linalg_vector_norm(
        gradients.reshape({gradients.size(0), weight().size(0), weight()[0].numel()}), 2.0, at::IntArrayRef{2});
    squared_norms.add_(parts.square().sum(1));
  }
}

// ---- Linear ----

Linear::Linear(std::int64_t inputs, std::int64_t outputs, const LinearOptions& options)
    : Linear(inputs, outputs, options, "weight", "bias") {}

Linear::Linear(std::int64_t inputs, std::int64_t outputs, const LinearOptions& options, std::string weight_name,
               std::string bias_name) {
  const Start usual{Start::Law::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))};
  weight_start_ = options.weight_start.value_or(usual);
  bias_start_ = options.bias_start.value_or(usual);
  register_weight_and_bias(at::zeros({outputs, inputs}), options.bias ? at::zeros({outputs}) : at::Tensor(),
                           std::move(weight_name), std::move(bias_name));
}

void Linear::initialize(std::uint64_t seed, const std::string& layer) {
  start(weight(), weight_start_, seed, weight_name(layer));
  if (has_bias()) start(bias(), bias_start_, seed, bias_name(layer));
}

at::Tensor Linear::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) {
  require(input.dim() == 2 || input.dim() == 3, "Linear takes [B, inputs] or [B, T, inputs]");
  return at::linear(input, weight, bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt);
}

at::Tensor Linear::weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  if (input.dim() == 3) return at::bmm(output_gradient.transpose(1, 2), input).flatten(1);
  return at::mul(output_gradient.unsqueeze(2), input.unsqueeze(1)).flatten(1);
}

at::Tensor Linear::bias_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  const at::NoGradGuard no_grad;
  return output_gradient.dim() == 3 ? output_gradient.sum(1) : output_gradient.detach();
}

void Linear::write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                    at::Tensor columns) const {
  if (input.dim() == 3) return Layer::write_weight_gradients(input, output_gradient, columns);
  const at::NoGradGuard no_grad;
  at::Tensor target = columns.unflatten(1, {weight().size(0), weight().size(1)});
  at::mul_out(target, output_gradient.unsqueeze(2), input.unsqueeze(1));
}

void Linear::project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                      const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const {
  const at::NoGradGuard no_grad;
  const std::int64_t batch = input.size(0), outputs = weight().size(0), inputs = weight().size(1);
  const at::Tensor factor = input.to(block.scalar_type()), other = output_gradient.to(block.scalar_type());
  const bool has_places = input.dim() == 3;
  const std::int64_t scratch_of_output = batch * (has_places ? inputs : block.size(0));
  const std::int64_t step =
      std::clamp<std::int64_t>(projection_scratch_elements / std::max<std::int64_t>(1, scratch_of_output), 1, outputs);
  const at::Tensor by_output = block.unflatten(1, {outputs, inputs}).permute({1, 2, 0});  // a view, [C, F, ell]
  for (std::int64_t first = 0; first < outputs; first += step) {
    const std::int64_t count = std::min(step, outputs - first);
    if (has_places) {
      const at::Tensor gradients = at::bmm(output_gradient.narrow(2, first, count).transpose(1, 2), input).flatten(1);
      add_product(projected, gradients, block.narrow(1, first * inputs, count * inputs));
      if (squared_norms.defined()) squared_norms.add_(gradients.square().sum(1));
      continue;
    }
    // z[b, e] = sum over c of r[b, c] (sum over f of S[e, c, f] h[b, f]), the inner sums as one batched product over c.
    const at::Tensor inner =
        at::bmm(factor.unsqueeze(0).expand({count, batch, inputs}), by_output.narrow(0, first, count));
    projected.add_(at::bmm(other.narrow(1, first, count).unsqueeze(1), inner.transpose(0, 1)).squeeze(1));
  }
  if (squared_norms.defined() && !has_places) {
    squared_norms.add_(output_gradient.square().sum(1) * input.square().sum(1));
  }
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
