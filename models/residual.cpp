#include "models/residual.h"

#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <string>

namespace sage {
namespace {

class Bottleneck : public Block {
 public:
  Bottleneck(std::int64_t inputs, std::int64_t inner, std::int64_t outputs, std::int64_t stride, std::int64_t groups,
             const BatchNormFunction& batch_norm) {
    const ConvolutionOptions pointwise{.kernel = 1};
    const ConvolutionOptions middle{.kernel = 3, .stride = stride, .padding = 1, .groups = groups};
    conv1_ = register_child("conv1", std::make_shared<Conv2d>(inputs, inner, pointwise));
    bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(inner, batch_norm));
    conv2_ = register_child("conv2", std::make_shared<Conv2d>(inner, inner, middle));
    bn2_ = register_child("bn2", std::make_shared<BatchNorm2d>(inner, batch_norm));
    conv3_ = register_child("conv3", std::make_shared<Conv2d>(inner, outputs, pointwise));
    bn3_ = register_child("bn3", std::make_shared<BatchNorm2d>(outputs, batch_norm));
    if (stride != 1 || inputs != outputs) {
      downsample_ = register_child(
          "downsample", make_convolution_norm(inputs, outputs, {.kernel = 1, .stride = stride}, batch_norm, nullptr));
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
  std::shared_ptr<Sequence> downsample_;
};

}  // namespace

std::shared_ptr<Block> make_bottleneck(std::int64_t inputs, std::int64_t inner, std::int64_t outputs,
                                       std::int64_t stride, std::int64_t groups, const BatchNormFunction& batch_norm) {
  return std::make_shared<Bottleneck>(inputs, inner, outputs, stride, groups, batch_norm);
}

ResidualNetwork::ResidualNetwork(const ModelArguments& arguments, std::int64_t stem_channels,
                                 const ConvolutionOptions& stem, bool max_pool, const std::vector<Stage>& stages,
                                 const MakeBlock& make_block)
    : Classifier(arguments.input_shape, arguments.class_count), max_pool_(max_pool) {
  conv1_ = register_child("conv1", std::make_shared<Conv2d>(arguments.input_shape.channels, stem_channels, stem));
  bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(stem_channels, arguments.batch_norm));
  std::int64_t channels = stem_channels;
  for (const Stage& stage : stages) {
    auto blocks = std::make_shared<Sequence>();
    for (int block = 0; block < stage.blocks; ++block) {
      blocks->append(make_block(channels, stage.outputs, block == 0 && !stages_.empty() ? 2 : 1));
      channels = stage.outputs;
    }
    stages_.push_back(register_child("layer" + std::to_string(stages_.size() + 1), blocks));
  }
  add_head(channels);
}

at::Tensor ResidualNetwork::compute_features(const at::Tensor& images) {
  at::Tensor x = at::relu(bn1_->forward(conv1_->forward(images)));
  if (max_pool_) x = at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1});
  for (const auto& stage : stages_) x = stage->forward(x);
  return x.mean(at::IntArrayRef{2, 3});
}

}  // namespace sage
