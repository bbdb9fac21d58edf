#include <ATen/ops/relu.h>

#include <string>

#include "models/architectures.h"
#include "models/residual.h"

namespace sage {
namespace {

constexpr std::int64_t group_count = 32;
constexpr std::int64_t base_group_width = 4;
constexpr std::int64_t expansion = 2;  // channels at a block's output / channels of its grouped convolution

/// 1x1 convolution, grouped 3x3 convolution, 1x1 convolution (form (c) of figure 3 of the paper).
class GroupedBottleneck : public ResidualBlock {
 public:
  GroupedBottleneck(std::int64_t inputs, std::int64_t inner, std::int64_t stride, const BatchNormFunction& batch_norm) {
    const std::int64_t outputs = expansion * inner;
    const ConvolutionOptions pointwise{.kernel = 1};
    const ConvolutionOptions grouped{.kernel = 3, .stride = stride, .padding = 1, .groups = group_count};
    conv1_ = register_child("conv1", std::make_shared<Conv2d>(inputs, inner, pointwise));
    bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(inner, batch_norm));
    conv2_ = register_child("conv2", std::make_shared<Conv2d>(inner, inner, grouped));
    bn2_ = register_child("bn2", std::make_shared<BatchNorm2d>(inner, batch_norm));
    conv3_ = register_child("conv3", std::make_shared<Conv2d>(inner, outputs, pointwise));
    bn3_ = register_child("bn3", std::make_shared<BatchNorm2d>(outputs, batch_norm));
    if (stride != 1 || inputs != outputs) {
      downsample_ = register_child("downsample", std::make_shared<Downsample>(inputs, outputs, stride, batch_norm));
    }
  }

  at::Tensor forward(const at::Tensor& input) override {
    at::Tensor x = at::relu(bn1_->forward(conv1_->forward(input)));
    x = at::relu(bn2_->forward(conv2_->forward(x)));
    x = bn3_->forward(conv3_->forward(x));
    return at::relu(x + (downsample_ ? downsample_->forward(input) : input));
  }

 private:
  std::shared_ptr<Conv2d> conv1_, conv2_, conv3_;
  std::shared_ptr<BatchNorm2d> bn1_, bn2_, bn3_;
  std::shared_ptr<Downsample> downsample_;
};

class ResNeXt29 : public Classifier {
 public:
  explicit ResNeXt29(const ModelArguments& arguments) : Classifier(arguments.input_shape, arguments.class_count) {
    std::int64_t channels = 64;
    conv1_ = register_child(
        "conv1", std::make_shared<Conv2d>(arguments.input_shape.channels, channels, ConvolutionOptions{.kernel = 1}));
    bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(channels, arguments.batch_norm));
    for (int s = 0; s < 3; ++s) {
      auto stage = std::make_shared<Stage>();
      const std::int64_t inner = (group_count * base_group_width) << s;
      for (int b = 0; b < 3; ++b) {
        const std::int64_t stride = s > 0 && b == 0 ? 2 : 1;
        stage->append(std::make_shared<GroupedBottleneck>(channels, inner, stride, arguments.batch_norm));
        channels = expansion * inner;
      }
      stages_.push_back(register_child("layer" + std::to_string(s + 1), stage));
    }
    add_head(channels);
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    at::Tensor x = at::relu(bn1_->forward(conv1_->forward(images)));
    for (const auto& stage : stages_) x = stage->forward(x);
    return x.mean(at::IntArrayRef{2, 3});
  }

 private:
  std::shared_ptr<Conv2d> conv1_;
  std::shared_ptr<BatchNorm2d> bn1_;
  std::vector<std::shared_ptr<Stage>> stages_;
};

}  // namespace

std::unique_ptr<Classifier> make_resnext29_32x4d(const ModelArguments& arguments) {
  return std::make_unique<ResNeXt29>(arguments);
}

}  // namespace sage
