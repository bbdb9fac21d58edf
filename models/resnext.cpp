#include <ATen/ops/relu.h>

#include <vector>

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

}  // namespace

std::unique_ptr<Classifier> make_resnext29_32x4d(const ModelArguments& arguments) {
  const std::int64_t first = expansion * group_count * base_group_width;
  return std::make_unique<ResidualNetwork>(
      arguments, 64, ConvolutionOptions{.kernel = 1}, std::vector<std::int64_t>{first, 2 * first, 4 * first}, 3,
      [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
        return std::make_shared<GroupedBottleneck>(inputs, outputs / expansion, stride, arguments.batch_norm);
      });
}

}  // namespace sage
