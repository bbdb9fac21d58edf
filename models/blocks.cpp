#include "models/blocks.h"

#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

namespace sage {

std::shared_ptr<Sequence> make_convolution_norm(std::int64_t inputs, std::int64_t outputs, ConvolutionOptions options,
                                                const BatchNormFunction& batch_norm, Activation::Function activation) {
  options.padding = (options.kernel - 1) / 2;
  auto result = std::make_shared<Sequence>();
  result->append(std::make_shared<Conv2d>(inputs, outputs, options));
  result->append(std::make_shared<BatchNorm2d>(outputs, batch_norm));
  if (activation != nullptr) result->append(std::make_shared<Activation>(activation));
  return result;
}

SqueezeExcitation::SqueezeExcitation(std::int64_t channels, std::int64_t inner) {
  const ConvolutionOptions pointwise{.kernel = 1, .bias = true, .bias_start = Start{}};
  fc1_ = register_child("fc1", std::make_shared<Conv2d>(channels, inner, pointwise));
  fc2_ = register_child("fc2", std::make_shared<Conv2d>(inner, channels, pointwise));
}

at::Tensor SqueezeExcitation::forward(const at::Tensor& input) {
  const at::Tensor squeezed = input.mean(at::IntArrayRef{2, 3}, /*keepdim=*/true);
  return input * at::sigmoid(fc2_->forward(at::silu(fc1_->forward(squeezed))));
}

}  // namespace sage
