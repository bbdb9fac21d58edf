// Parts that several networks are made of.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/layers.h"

namespace sage {

/// An activation function without parameters, at::relu for example.
class Activation : public Block {
 public:
  using Function = at::Tensor (*)(const at::Tensor&);
  explicit Activation(Function function) : function_(function) {}
  at::Tensor forward(const at::Tensor& input) override { return function_(input); }

 private:
  Function function_;
};

/// Blocks one after another.
class Sequence : public Block {
 public:
  /// Under the name of its place: "0", "1", ..., as in torch.nn.Sequential.
  void append(std::shared_ptr<Block> block) { append(std::to_string(blocks_.size()), std::move(block)); }
  void append(std::string name, std::shared_ptr<Block> block) {
    blocks_.push_back(register_child(std::move(name), std::move(block)));
  }
  at::Tensor forward(const at::Tensor& input) override {
    at::Tensor x = input;
    for (const auto& block : blocks_) x = block->forward(x);
    return x;
  }

 private:
  std::vector<std::shared_ptr<Block>> blocks_;
};

/// Convolution "0" (padded so that stride 1 keeps the size), batch normalisation "1" and, unless that is null, an
/// activation: torchvision's Conv2dNormActivation, and its downsample without an activation.
std::shared_ptr<Sequence> make_convolution_norm(std::int64_t inputs, std::int64_t outputs, ConvolutionOptions options,
                                                const BatchNormFunction& batch_norm, Activation::Function activation);

/// x scaled by sigmoid(fc2(silu(fc1(mean of x over all pixels)))), a factor for each channel (Hu, Shen, Sun, "Squeeze-
/// and-excitation networks", 2018). fc1 and fc2 are 1x1 convolutions with biases, `inner` channels between them.
class SqueezeExcitation : public Block {
 public:
  SqueezeExcitation(std::int64_t channels, std::int64_t inner);
  at::Tensor forward(const at::Tensor& input) override;

 private:
  std::shared_ptr<Conv2d> fc1_, fc2_;
};

}  // namespace sage
