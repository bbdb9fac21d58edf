// Parts that the residual networks share.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "models/architectures.h"
#include "models/layers.h"

namespace sage {

/// One residual block: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].
class ResidualBlock : public Module {
 public:
  virtual at::Tensor forward(const at::Tensor& input) = 0;
};

/// Blocks one after another, named "0", "1", ...: torchvision's layer1, layer2, ...
class Stage : public Module {
 public:
  void append(std::shared_ptr<ResidualBlock> block) {
    blocks_.push_back(register_child(std::to_string(blocks_.size()), std::move(block)));
  }
  at::Tensor forward(at::Tensor x) {
    for (const auto& block : blocks_) x = block->forward(x);
    return x;
  }

 private:
  std::vector<std::shared_ptr<ResidualBlock>> blocks_;
};

/// A shortcut that changes the shape: 1x1 convolution "0" and batch normalisation "1", as torchvision's downsample.
class Downsample : public Module {
 public:
  Downsample(std::int64_t inputs, std::int64_t outputs, std::int64_t stride, const BatchNormFunction& batch_norm)
      : convolution_(register_child(
            "0", std::make_shared<Conv2d>(inputs, outputs, ConvolutionOptions{.kernel = 1, .stride = stride}))),
        norm_(register_child("1", std::make_shared<BatchNorm2d>(outputs, batch_norm))) {}
  at::Tensor forward(const at::Tensor& input) { return norm_->forward(convolution_->forward(input)); }

 private:
  std::shared_ptr<Conv2d> convolution_;
  std::shared_ptr<BatchNorm2d> norm_;
};

using MakeBlock =
    std::function<std::shared_ptr<ResidualBlock>(std::int64_t inputs, std::int64_t outputs, std::int64_t stride)>;

/// A stem `conv1`, `bn1` and ReLU, stages `layer1`, `layer2`, ... of blocks, the mean over all pixels, and the head.
/// Every stage but the first begins with stride 2.
class ResidualNetwork : public Classifier {
 public:
  /// `stages`: channels at the end of each.
  ResidualNetwork(const ModelArguments& arguments, std::int64_t stem_channels, const ConvolutionOptions& stem,
                  const std::vector<std::int64_t>& stages, int blocks_per_stage, const MakeBlock& make_block);

 protected:
  at::Tensor compute_features(const at::Tensor& images) override;

 private:
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<BatchNorm2d> bn1_;
  std::vector<std::shared_ptr<Stage>> stages_;
};

}  // namespace sage
