#include <ATen/ops/silu.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "models/architectures.h"
#include "models/blocks.h"
#include "models/noise.h"

namespace sage {
namespace {

at::Tensor silu(const at::Tensor& x) { return at::silu(x); }

/// Some blocks in a row; all but the first have stride 1.
struct EfficientGroup {
  std::int64_t expansion, kernel, stride, outputs;
  int blocks;
};

/// Table 1 of the paper: EfficientNet-B0.
constexpr std::array<EfficientGroup, 7> efficient_groups{{{1, 3, 1, 16, 1},
                                                          {6, 3, 2, 24, 2},
                                                          {6, 5, 2, 40, 2},
                                                          {6, 3, 2, 80, 3},
                                                          {6, 5, 1, 112, 3},
                                                          {6, 5, 2, 192, 4},
                                                          {6, 3, 1, 320, 1}}};
constexpr std::int64_t efficient_first_channels = 32, efficient_last_channels = 1280;
constexpr double last_depth_probability = 0.2;  // of stochastic depth: rises from 0 over the blocks to this

/// The sequence `block`: a 1x1 convolution to `expansion` times the channels (none for 1), a depthwise convolution,
/// squeeze-and-excitation, and a 1x1 convolution without an activation; then, where there is a shortcut, stochastic
/// depth.
class MobileBlock : public Block {
 public:
  MobileBlock(std::int64_t inputs, const EfficientGroup& group, std::int64_t stride, double depth_probability,
              const BatchNormFunction& batch_norm)
      : has_shortcut_(stride == 1 && inputs == group.outputs),
        block_(register_child("block", std::make_shared<Sequence>())) {
    const std::int64_t inner = group.expansion * inputs;
    if (inner != inputs) block_->append(make_convolution_norm(inputs, inner, {.kernel = 1}, batch_norm, silu));
    const ConvolutionOptions depthwise{.kernel = group.kernel, .stride = stride, .groups = inner};
    block_->append(make_convolution_norm(inner, inner, depthwise, batch_norm, silu));
    block_->append(std::make_shared<SqueezeExcitation>(inner, std::max<std::int64_t>(1, inputs / 4)));
    block_->append(make_convolution_norm(inner, group.outputs, {.kernel = 1}, batch_norm, nullptr));
    if (has_shortcut_) {
      stochastic_depth_ = register_child("stochastic_depth", std::make_shared<Noise>(depth_probability, 1));
    }
  }
  at::Tensor forward(const at::Tensor& input) override {
    const at::Tensor x = block_->forward(input);
    return has_shortcut_ ? stochastic_depth_->forward(x) + input : x;
  }

 private:
  bool has_shortcut_;
  std::shared_ptr<Sequence> block_;
  std::shared_ptr<Noise> stochastic_depth_;
};

class EfficientNet : public Classifier {
 public:
  explicit EfficientNet(const ModelArguments& arguments)
      : Classifier(arguments.input_shape, arguments.class_count),
        features_(register_child("features", std::make_shared<Sequence>())) {
    const BatchNormFunction& batch_norm = arguments.batch_norm;
    const ConvolutionOptions stem{.kernel = 3, .stride = arguments.stem == Stem::imagenet ? 2 : 1};
    features_->append(
        make_convolution_norm(arguments.input_shape.channels, efficient_first_channels, stem, batch_norm, silu));
    int block_count = 0, made = 0;
    for (const EfficientGroup& group : efficient_groups) block_count += group.blocks;
    std::int64_t channels = efficient_first_channels;
    for (const EfficientGroup& group : efficient_groups) {
      auto stage = std::make_shared<Sequence>();
      for (int block = 0; block < group.blocks; ++block, ++made) {
        stage->append(std::make_shared<MobileBlock>(channels, group, block == 0 ? group.stride : 1,
                                                    last_depth_probability * made / block_count, batch_norm));
        channels = group.outputs;
      }
      features_->append(stage);
    }
    features_->append(make_convolution_norm(channels, efficient_last_channels, {.kernel = 1}, batch_norm, silu));
    const Start weight{Start::Law::uniform, 1.0 / std::sqrt(static_cast<double>(arguments.class_count))};
    const LinearOptions linear{.weight_start = weight, .bias_start = Start{}};
    add_head(efficient_last_channels, {.name = "classifier.1", .linear = linear, .dropout = 0.2});
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    return features_->forward(images).mean(at::IntArrayRef{2, 3});
  }

 private:
  std::shared_ptr<Sequence> features_;
};

}  // namespace

std::unique_ptr<Classifier> make_efficientnet_b0(const ModelArguments& arguments) {
  return std::make_unique<EfficientNet>(arguments);
}

}  // namespace sage
