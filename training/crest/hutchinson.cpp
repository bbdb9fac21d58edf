#include "training/crest/hutchinson.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/one_hot.h>

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <algorithm>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

using Tensors = std::vector<at::Tensor>;

/// A level of forward-mode differentiation: tangents that are set in it vanish with it.
class TangentLevel {
 public:
  TangentLevel() : level_(torch::autograd::ForwardADLevel::get_next_idx()) {}
  TangentLevel(const TangentLevel&) = delete;
  TangentLevel& operator=(const TangentLevel&) = delete;
  ~TangentLevel() { torch::autograd::ForwardADLevel::release_idx(level_); }
  std::uint64_t number() const { return level_; }

 private:
  std::uint64_t level_;
};

/// The pieces of a vector [D], shaped as the parameters.
Tensors pieces_of(const at::Tensor& vector, std::span<const at::Tensor> parameters) {
  Tensors pieces;
  std::int64_t offset = 0;
  for (const at::Tensor& parameter : parameters) {
    pieces.push_back(vector.narrow(0, offset, parameter.numel()).view(parameter.sizes()).to(parameter.scalar_type()));
    offset += parameter.numel();
  }
  return pieces;
}

/// vector += scale * pieces, or pieces themselves; a piece may be undefined (zero).
void add_pieces(at::Tensor vector, const Tensors& pieces, std::span<const at::Tensor> parameters,
                const at::Tensor& scale) {
  const at::NoGradGuard no_gradients;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::int64_t count = parameters[i].numel();
    if (pieces[i].defined()) {
      at::Tensor target = vector.narrow(0, offset, count);
      const at::Tensor piece = pieces[i].detach().reshape({-1}).to(vector.scalar_type());
      if (scale.defined()) {
        target.addcmul_(piece, scale.narrow(0, offset, count));
      } else {
        target.add_(piece);
      }
    }
    offset += count;
  }
}

Tensors gradients_of(const at::Tensor& loss, std::span<const at::Tensor> parameters, bool differentiable) {
  return torch::autograd::grad({loss}, Tensors(parameters.begin(), parameters.end()), {},
                               /*retain_graph=*/differentiable, /*create_graph=*/differentiable,
                               /*allow_unused=*/true);
}

}  // namespace

HessianProduct to_hessian_product(const std::string& name) {
  if (name == "auto" || name == "double_backward") return HessianProduct::double_backward;
  require(name == "forward_over_reverse", "selection.crest.hessian has an unknown value");
  return HessianProduct::forward_over_reverse;
}

at::Tensor cross_entropy_by_operations(const at::Tensor& logits, const at::Tensor& labels, double smoothing) {
  const at::Tensor target = at::one_hot(labels, logits.size(1)).to(logits.scalar_type());
  at::Tensor wanted = (logits * target).sum(1);
  if (smoothing > 0.0) wanted = (1.0 - smoothing) * wanted + smoothing * logits.mean(1);
  return at::logsumexp(logits, at::IntArrayRef{1}) - wanted;
}

at::Tensor flattened_parameters(std::span<const at::Tensor> parameters) {
  const at::NoGradGuard no_gradients;
  Tensors flat;
  for (const at::Tensor& parameter : parameters) flat.push_back(parameter.detach().reshape({-1}));
  return at::cat(flat);
}

at::Tensor random_signs(RandomStream stream, std::int64_t dimension, at::Device device) {
  at::Tensor signs = at::empty({dimension}, at::kFloat);
  float* sign = signs.mutable_data_ptr<float>();
  constexpr std::int64_t bits = 32;
  for (std::int64_t i = 0; i < dimension; i += bits) {
    const std::uint32_t drawn = stream();
    for (std::int64_t bit = 0; bit < std::min(bits, dimension - i); ++bit) {
      sign[i + bit] = ((drawn >> bit) & 1U) != 0 ? 1.0F : -1.0F;
    }
  }
  return signs.to(device);
}

double add_derivatives(const std::function<at::Tensor()>& loss, std::span<const at::Tensor> parameters,
                       const at::Tensor& probe, HessianProduct how, at::Tensor gradient, at::Tensor diagonal) {
  const at::AutoGradMode gradients_wanted(true);
  const Tensors directions = pieces_of(probe, parameters);
  if (how == HessianProduct::forward_over_reverse) {
    const TangentLevel level;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      parameters[i]._set_fw_grad(directions[i], level.number(), /*is_inplace_op=*/false);
    }
    const at::Tensor value = loss();
    const Tensors gradients = gradients_of(value, parameters, /*differentiable=*/false);
    Tensors products;
    for (const at::Tensor& one : gradients) {
      const at::Tensor product = one.defined() ? one._fw_grad(level.number()) : one;
      products.push_back(product.defined() ? product.clone() : product);
    }
    add_pieces(gradient, gradients, parameters, {});
    add_pieces(diagonal, products, parameters, probe);
    return value.item<double>();
  }
  const at::Tensor value = loss();
  const Tensors gradients = gradients_of(value, parameters, /*differentiable=*/true);
  Tensors outputs, along;  // of the gradients that depend on the parameters
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    if (!gradients[i].defined() || !gradients[i].requires_grad()) continue;
    outputs.push_back(gradients[i]);
    along.push_back(directions[i]);
  }
  add_pieces(gradient, gradients, parameters, {});
  if (!outputs.empty()) {
    const Tensors products =
        torch::autograd::grad(outputs, Tensors(parameters.begin(), parameters.end()), along, /*retain_graph=*/false,
                              /*create_graph=*/false, /*allow_unused=*/true);
    add_pieces(diagonal, products, parameters, probe);
  }
  return value.item<double>();
}

}  // namespace sage
