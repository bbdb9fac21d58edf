#include "models/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "core/error.h"

namespace sage {
namespace {

/// Xavier (Glorot and Bengio, 2010), as torch.nn.init.xavier_uniform_ has it.
Start xavier(std::int64_t inputs, std::int64_t outputs) {
  return {Start::Law::uniform, std::sqrt(6.0 / static_cast<double>(inputs + outputs))};
}

}  // namespace

MultiheadAttention::MultiheadAttention(std::int64_t width, std::int64_t heads)
    : Linear(width, 3 * width, {.weight_start = xavier(width, 3 * width), .bias_start = Start{}}, "in_proj_weight",
             "in_proj_bias"),
      heads_(heads) {
  require(heads >= 1 && width % heads == 0, "the heads of an attention must divide its width");
  out_proj_ = register_child("out_proj", std::make_shared<Linear>(width, width, LinearOptions{.bias_start = Start{}}));
}

at::Tensor MultiheadAttention::attend(const at::Tensor& x) {
  const std::int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2), depth = width / heads_;
  const at::Tensor parts = forward(x).reshape({batch, tokens, 3, heads_, depth}).permute({2, 0, 3, 1, 4});
  const at::Tensor queries = parts.select(0, 0) / std::sqrt(static_cast<double>(depth));  // [B, heads, T, depth]
  const at::Tensor keys = parts.select(0, 1), values = parts.select(0, 2);
  const at::Tensor attention = at::softmax(at::matmul(queries, keys.transpose(2, 3)), 3);
  return out_proj_->forward(at::matmul(attention, values).transpose(1, 2).reshape({batch, tokens, width}));
}

ClassToken::ClassToken(std::int64_t width) { register_weight_and_bias(at::zeros({1, 1, width}), {}, ""); }

void ClassToken::initialize(std::uint64_t seed, const std::string& layer) {
  start(weight(), Start{}, seed, weight_name(layer));
}

at::Tensor ClassToken::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor&) {
  return at::cat({weight.expand({input.size(0), 1, input.size(2)}), input}, 1);
}

at::Tensor ClassToken::weight_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  return output_gradient.detach().select(1, 0);
}

PositionEmbedding::PositionEmbedding(std::int64_t tokens, std::int64_t width) {
  register_weight_and_bias(at::zeros({1, tokens, width}), {}, "");
}

void PositionEmbedding::initialize(std::uint64_t seed, const std::string& layer) {
  start(weight(), {Start::Law::normal, 0.02}, seed, weight_name(layer));
}

at::Tensor PositionEmbedding::compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor&) {
  return input + weight;
}

at::Tensor PositionEmbedding::weight_gradients(const at::Tensor&, const at::Tensor& output_gradient) const {
  return output_gradient.detach().flatten(1);
}

}  // namespace sage
