#include <ATen/ops/relu6.h>

#include <array>
#include <vector>

#include "models/architectures.h"
#include "models/blocks.h"

namespace sage {
namespace {

at::Tensor relu6(const at::Tensor& x) { return at::relu6(x); }

/// Some blocks in a row; all but the first have stride 1.
struct MobileGroup {
  std::int64_t expansion, outputs;
  int blocks;
  std::int64_t stride;
};

/// Table 2 of the paper.
constexpr std::array<MobileGroup, 7> mobile_groups{
    {{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}}};
constexpr std::int64_t mobile_first_channels = 32, mobile_last_channels = 1280;

/// A 1x1 convolution to `expansion` times the channels (none for 1), a depthwise 3x3 convolution, and a 1x1 convolution
/// without an activation, as the sequence `conv`.
class InvertedResidual : public Block {
 public:
  InvertedResidual(std::int64_t inputs, std::int64_t outputs, std::int64_t stride, std::int64_t expansion,
                   const BatchNormFunction& batch_norm)
      : has_shortcut_(stride == 1 && inputs == outputs), conv_(register_child("conv", std::make_shared<Sequence>())) {
    const std::int64_t inner = expansion * inputs;
    if (expansion != 1) conv_->append(make_convolution_norm(inputs, inner, {.kernel = 1}, batch_norm, relu6));
    conv_->append(make_convolution_norm(inner, inner, {.stride = stride, .groups = inner}, batch_norm, relu6));
    conv_->append(std::make_shared<Conv2d>(inner, outputs, ConvolutionOptions{.kernel = 1}));
    conv_->append(std::make_shared<BatchNorm2d>(outputs, batch_norm));
  }
  at::Tensor forward(const at::Tensor& input) override {
    const at::Tensor x = conv_->forward(input);
    return has_shortcut_ ? input + x : x;
  }

 private:
  bool has_shortcut_;
  std::shared_ptr<Sequence> conv_;
};

class MobileNetV2 : public Classifier {
 public:
  explicit MobileNetV2(const ModelArguments& arguments)
      : Classifier(arguments.input_shape, arguments.class_count),
        features_(register_child("features", std::make_shared<Sequence>())) {
    const BatchNormFunction& batch_norm = arguments.batch_norm;
    const ConvolutionOptions stem{.kernel = 3, .stride = arguments.stem == Stem::imagenet ? 2 : 1};
    features_->append(
        make_convolution_norm(arguments.input_shape.channels, mobile_first_channels, stem, batch_norm, relu6));
    std::int64_t channels = mobile_first_channels;
    for (const MobileGroup& group : mobile_groups) {
      for (int block = 0; block < group.blocks; ++block) {
        features_->append(std::make_shared<InvertedResidual>(channels, group.outputs, block == 0 ? group.stride : 1,
                                                             group.expansion, batch_norm));
        channels = group.outputs;
      }
    }
    features_->append(make_convolution_norm(channels, mobile_last_channels, {.kernel = 1}, batch_norm, relu6));
    const LinearOptions linear{.weight_start = Start{Start::Law::normal, 0.01}, .bias_start = Start{}};
    add_head(mobile_last_channels, {.name = "classifier.1", .linear = linear, .dropout = 0.2});
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    return features_->forward(images).mean(at::IntArrayRef{2, 3});
  }

 private:
  std::shared_ptr<Sequence> features_;
};

}  // namespace

std::unique_ptr<Classifier> make_mobilenet_v2(const ModelArguments& arguments) {
  return std::make_unique<MobileNetV2>(arguments);
}

}  // namespace sage
