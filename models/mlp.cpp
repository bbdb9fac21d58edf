#include <ATen/ops/relu.h>

#include "models/architectures.h"

namespace sage {
namespace {

class Mlp : public Classifier {
 public:
  explicit Mlp(const ModelArguments& arguments) : Classifier(arguments.input_shape, arguments.class_count) {
    const std::int64_t width = arguments.width > 0 ? arguments.width : 256;
    const InputShape& shape = arguments.input_shape;
    first_ = register_child("fc1", std::make_shared<Linear>(shape.channels * shape.height * shape.width, width));
    second_ = register_child("fc2", std::make_shared<Linear>(width, width));
    add_head(width);
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    return at::relu(second_->forward(at::relu(first_->forward(images.flatten(1)))));
  }

 private:
  std::shared_ptr<Linear> first_, second_;
};

}  // namespace

std::unique_ptr<Classifier> make_mlp(const ModelArguments& arguments) { return std::make_unique<Mlp>(arguments); }

}  // namespace sage
