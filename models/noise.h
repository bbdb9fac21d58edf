// What a network draws anew in every training step: dropout (Srivastava et al., 2014) and stochastic depth (Huang et
// al., "Deep networks with stochastic depth", 2016). The noise of an example is a pure function of the seed, the step,
// the layer and the example's id, so that it depends neither on the number of ranks nor on how a batch is split.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "models/module.h"

namespace sage {

/// Multiplies example b of x [B, ...] by its row of noise: 0 with probability `probability`, else 1 / (1 -
/// probability). Does nothing in eval mode, and where no noise was given.
class Noise : public Block {
 public:
  /// `width` 1: one draw for the whole example (stochastic depth); F: one for each of F features (dropout).
  Noise(double probability, std::int64_t width);
  at::Tensor forward(const at::Tensor& input) override;

  /// Values that one example takes; 0 where nothing is ever dropped.
  std::int64_t width() const { return probability_ > 0 ? width_ : 0; }
  /// Writes the factors of one example, width() of them, for the layer called `name`.
  void draw(std::uint64_t seed, const std::string& name, std::int64_t step, std::int64_t id, float* factors) const;
  /// float32 [B, width()] on the input's device, for the passes to come; undefined: none.
  void set(at::Tensor factors) { factors_ = std::move(factors); }

 private:
  double probability_;
  std::int64_t width_;
  at::Tensor factors_;
};

}  // namespace sage
