#include "models/residual.h"

#include <ATen/ops/relu.h>

namespace sage {

ResidualNetwork::ResidualNetwork(const ModelArguments& arguments, std::int64_t stem_channels,
                                 const ConvolutionOptions& stem, const std::vector<std::int64_t>& stages,
                                 int blocks_per_stage, const MakeBlock& make_block)
    : Classifier(arguments.input_shape, arguments.class_count) {
  conv1_ = register_child("conv1", std::make_shared<Conv2d>(arguments.input_shape.channels, stem_channels, stem));
  bn1_ = register_child("bn1", std::make_shared<BatchNorm2d>(stem_channels, arguments.batch_norm));
  std::int64_t channels = stem_channels;
  for (const std::int64_t outputs : stages) {
    auto stage = std::make_shared<Stage>();
    for (int block = 0; block < blocks_per_stage; ++block) {
      stage->append(make_block(channels, outputs, block == 0 && !stages_.empty() ? 2 : 1));
      channels = outputs;
    }
    stages_.push_back(register_child("layer" + std::to_string(stages_.size() + 1), stage));
  }
  add_head(channels);
}

at::Tensor ResidualNetwork::compute_features(const at::Tensor& images) {
  at::Tensor x = at::relu(bn1_->forward(conv1_->forward(images)));
  for (const auto& stage : stages_) x = stage->forward(x);
  return x.mean(at::IntArrayRef{2, 3});
}

}  // namespace sage
