#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <string>
#include <vector>

#include "models/architectures.h"

namespace sage {
namespace {

class Cnn : public Classifier {
 public:
  explicit Cnn(const ModelArguments& arguments) : Classifier(arguments.input_shape, arguments.class_count) {
    const std::int64_t width = arguments.width > 0 ? arguments.width : 32;
    std::int64_t channels = arguments.input_shape.channels;
    for (int i = 0; i < 3; ++i) {
      const std::int64_t outputs = width << i;
      const std::string number = std::to_string(i + 1);
      convolutions_.push_back(register_child(
          "conv" + number, std::make_shared<Conv2d>(channels, outputs, ConvolutionOptions{.kernel = 3, .padding = 1})));
      norms_.push_back(register_child("bn" + number, std::make_shared<BatchNorm2d>(outputs, arguments.batch_norm)));
      channels = outputs;
    }
    add_head(channels);
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    at::Tensor x = images;
    for (std::size_t i = 0; i < convolutions_.size(); ++i) {
      if (i > 0) x = at::max_pool2d(x, {2, 2});
      x = at::relu(norms_[i]->forward(convolutions_[i]->forward(x)));
    }
    return x.mean(at::IntArrayRef{2, 3});
  }

 private:
  std::vector<std::shared_ptr<Conv2d>> convolutions_;
  std::vector<std::shared_ptr<BatchNorm2d>> norms_;
};

}  // namespace

std::unique_ptr<Classifier> make_cnn(const ModelArguments& arguments) { return std::make_unique<Cnn>(arguments); }

}  // namespace sage
