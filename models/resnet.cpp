#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/relu.h>

#include <array>
#include <vector>

#include "models/architectures.h"
#include "models/residual.h"

namespace sage {
namespace {

/// How a block's input reaches its output where the shape changes.
enum class Shortcut {
  projection,  ///< 1x1 convolution and batch normalisation (option B of the paper, torchvision)
  padding,     ///< every second pixel, and zeros for the new channels (option A): no parameters
};

/// Two 3x3 convolutions.
class BasicBlock : public Block {
 public:
  BasicBlock(std::int64_t inputs, std::int64_t outputs, std::int64_t stride, Shortcut shortcut, ConvolutionInit init,
             const BatchNormFunction& batch_norm)
      : stride_(stride), new_channels_(outputs - inputs) {
    const ConvolutionOptions first{.kernel = 3, .stride = stride, .padding = 1, .init = init};
    const ConvolutionOptions second{.kernel = 3, .padding = 1, .init = init};
    conv1_ = register_child("conv1", std::make_shared<Conv2d>(inputs, outputs, first));
    bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(outputs, batch_norm));
    conv2_ = register_child("conv2", std::make_shared<Conv2d>(outputs, outputs, second));
    bn2_ = register_child("bn2", std::make_shared<BatchNorm2d>(outputs, batch_norm));
    const bool same_shape = stride == 1 && inputs == outputs;
    if (!same_shape && shortcut == Shortcut::projection) {
      downsample_ = register_child(
          "downsample", make_convolution_norm(inputs, outputs, {.kernel = 1, .stride = stride}, batch_norm, nullptr));
    }
  }

  at::Tensor forward(const at::Tensor& input) override {
    const at::Tensor x = at::relu(bn1_->forward(conv1_->forward(input)));
    return at::relu(bn2_->forward(conv2_->forward(x)) + shortcut(input));
  }

 private:
  at::Tensor shortcut(const at::Tensor& input) {
    if (downsample_) return downsample_->forward(input);
    if (stride_ == 1 && new_channels_ == 0) return input;
    const at::Tensor kept = input.slice(2, 0, std::nullopt, stride_).slice(3, 0, std::nullopt, stride_);
    const std::int64_t before = new_channels_ / 2;
    return at::constant_pad_nd(kept, {0, 0, 0, 0, before, new_channels_ - before}, 0);
  }

  std::int64_t stride_, new_channels_;
  std::shared_ptr<Conv2d> conv1_, conv2_;
  std::shared_ptr<BatchNorm2d> bn1_, bn2_;
  std::shared_ptr<Sequence> downsample_;
};

/// Blocks in each of the stages of torchvision's networks, whose stages begin with 64 channels.
using Depths = std::array<int, 4>;

/// torchvision's stem, or for small images a 3x3 convolution of stride 1 without pooling. `expansion`: channels at the
/// output of a block for each of its stage.
std::unique_ptr<Classifier> make_torchvision_resnet(const ModelArguments& arguments, const Depths& depths,
                                                    std::int64_t expansion, const MakeBlock& make_block) {
  const bool is_large = arguments.stem == Stem::imagenet;
  const ConvolutionOptions stem = is_large ? ConvolutionOptions{.kernel = 7, .stride = 2, .padding = 3}
                                           : ConvolutionOptions{.kernel = 3, .padding = 1};
  std::vector<Stage> stages;
  for (const int depth : depths) stages.push_back({(std::int64_t{64} << stages.size()) * expansion, depth});
  return std::make_unique<ResidualNetwork>(arguments, 64, stem, is_large, stages, make_block);
}

std::unique_ptr<Classifier> make_basic_resnet(const ModelArguments& arguments, const Depths& depths) {
  return make_torchvision_resnet(
      arguments, depths, 1, [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
        return std::make_shared<BasicBlock>(inputs, outputs, stride, Shortcut::projection,
                                            ConvolutionInit::kaiming_fan_out, arguments.batch_norm);
      });
}

/// Stage s has 64 2^s channels, times 4 at a block's output, and `groups` groups of `group_width` 2^s channels inside.
std::unique_ptr<Classifier> make_bottleneck_resnet(const ModelArguments& arguments, const Depths& depths,
                                                   std::int64_t groups, std::int64_t group_width) {
  constexpr std::int64_t expansion = 4;
  return make_torchvision_resnet(arguments, depths, expansion,
                                 [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
                                   const std::int64_t inner = outputs / expansion * group_width / 64 * groups;
                                   return make_bottleneck(inputs, inner, outputs, stride, groups, arguments.batch_norm);
                                 });
}

}  // namespace

std::unique_ptr<Classifier> make_resnet20(const ModelArguments& arguments) {
  constexpr auto init = ConvolutionInit::kaiming_fan_in;
  return std::make_unique<ResidualNetwork>(
      arguments, 16, ConvolutionOptions{.kernel = 3, .padding = 1, .init = init}, /*max_pool=*/false,
      std::vector<Stage>{{16, 3}, {32, 3}, {64, 3}},
      [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
        return std::make_shared<BasicBlock>(inputs, outputs, stride, Shortcut::padding, init, arguments.batch_norm);
      });
}

std::unique_ptr<Classifier> make_resnet18(const ModelArguments& arguments) {
  return make_basic_resnet(arguments, {2, 2, 2, 2});
}

std::unique_ptr<Classifier> make_resnet34(const ModelArguments& arguments) {
  return make_basic_resnet(arguments, {3, 4, 6, 3});
}

std::unique_ptr<Classifier> make_resnet50(const ModelArguments& arguments) {
  return make_bottleneck_resnet(arguments, {3, 4, 6, 3}, 1, 64);
}

std::unique_ptr<Classifier> make_resnext50_32x4d(const ModelArguments& arguments) {
  return make_bottleneck_resnet(arguments, {3, 4, 6, 3}, 32, 4);
}

}  // namespace sage
