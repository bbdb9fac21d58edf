// Parts that the residual networks share.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "models/architectures.h"
#include "models/blocks.h"

namespace sage {

/// One residual block: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)].
using MakeBlock = std::function<std::shared_ptr<Block>(std::int64_t inputs, std::int64_t outputs, std::int64_t stride)>;

/// A 1x1 convolution, a 3x3 convolution with the block's stride and groups, and a 1x1 convolution, with `inner`
/// channels between them: torchvision's Bottleneck, form (c) of figure 3 of the ResNeXt paper.
std::shared_ptr<Block> make_bottleneck(std::int64_t inputs, std::int64_t inner, std::int64_t outputs,
                                       std::int64_t stride, std::int64_t groups, const BatchNormFunction& batch_norm);

/// Blocks of the same number of channels at their outputs.
struct Stage {
  std::int64_t outputs = 0;
  int blocks = 0;
};

/// A stem `conv1`, `bn1`, ReLU and, if wanted, 3x3 max pooling of stride 2, stages `layer1`, `layer2`, ..., the mean
/// over all pixels, and the head `fc`. Every stage but the first begins with stride 2.
class ResidualNetwork : public Classifier {
 public:
  ResidualNetwork(const ModelArguments& arguments, std::int64_t stem_channels, const ConvolutionOptions& stem,
                  bool max_pool, const std::vector<Stage>& stages, const MakeBlock& make_block);

 protected:
  at::Tensor compute_features(const at::Tensor& images) override;

 private:
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<BatchNorm2d> bn1_;
  bool max_pool_;
  std::vector<std::shared_ptr<Sequence>> stages_;
};

}  // namespace sage
