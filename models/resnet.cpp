#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/relu.h>

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
class BasicBlock : public ResidualBlock {
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
      downsample_ = register_child("downsample", std::make_shared<Downsample>(inputs, outputs, stride, batch_norm));
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
  std::shared_ptr<Downsample> downsample_;
};

/// `channels` of the stem and the first stage; each further stage has twice as many.
std::unique_ptr<Classifier> make_resnet(const ModelArguments& arguments, std::int64_t channels, int stage_count,
                                        int blocks_per_stage, Shortcut shortcut, ConvolutionInit init) {
  std::vector<std::int64_t> stages;
  for (int s = 0; s < stage_count; ++s) stages.push_back(channels << s);
  const ConvolutionOptions stem{.kernel = 3, .padding = 1, .init = init};
  return std::make_unique<ResidualNetwork>(arguments, channels, stem, stages, blocks_per_stage,
                                           [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
                                             return std::make_shared<BasicBlock>(inputs, outputs, stride, shortcut,
                                                                                 init, arguments.batch_norm);
                                           });
}

}  // namespace

std::unique_ptr<Classifier> make_resnet20(const ModelArguments& arguments) {
  return make_resnet(arguments, 16, 3, 3, Shortcut::padding, ConvolutionInit::kaiming_fan_in);
}

std::unique_ptr<Classifier> make_resnet18(const ModelArguments& arguments) {
  return make_resnet(arguments, 64, 4, 2, Shortcut::projection, ConvolutionInit::kaiming_fan_out);
}

}  // namespace sage
