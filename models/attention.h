// The layers of transformers beside Linear and LayerNorm: x is [B, T, width], T tokens of one example.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "models/layers.h"

namespace sage {

/// Attention of every token to all tokens (Vaswani et al., "Attention is all you need", 2017), with the parameters of
/// torch.nn.MultiheadAttention: as a layer it is the projection `in_proj_weight`, `in_proj_bias` to queries, keys and
/// values, [B, T, 3 width]; attend() is the whole, `out_proj` included. The scores, [B, heads, T, T], are formed: they
/// are differentiable as often as wanted, and the bits of a repeat are the same.
class MultiheadAttention : public Linear {
 public:
  /// `heads` divides `width`.
  MultiheadAttention(std::int64_t width, std::int64_t heads);
  at::Tensor attend(const at::Tensor& x);

 private:
  std::int64_t heads_;
  std::shared_ptr<Linear> out_proj_;
};

/// Puts a learned token [1, 1, width], which starts at zero, before the others: [B, T, width] -> [B, T + 1, width].
class ClassToken : public Layer {
 public:
  explicit ClassToken(std::int64_t width);
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;

 protected:
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;
};

/// Adds learned values [1, T, width], normal of deviation 0.02 at the start, one for each place.
class PositionEmbedding : public Layer {
 public:
  PositionEmbedding(std::int64_t tokens, std::int64_t width);
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;

 protected:
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;
};

}  // namespace sage
