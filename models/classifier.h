// What every network of the project is: features of an image, and one Linear layer on top of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "models/layers.h"
#include "models/module.h"

namespace sage {

struct InputShape {
  std::int64_t channels = 0, height = 0, width = 0;
};

class Classifier : public Module {
 public:
  /// images [B, channels, height, width] of input_shape() -> [B, feature_count()]. Another shape is an InternalError.
  at::Tensor features(const at::Tensor& images);
  /// features [B, feature_count()] -> [B, class_count()].
  at::Tensor logits(const at::Tensor& features) { return head_->forward(features); }
  /// images -> logits.
  at::Tensor forward(const at::Tensor& images) { return logits(features(images)); }

  /// The last layer, `fc`: what the gradient scope `classifier` means.
  Linear& head() { return *head_; }
  const InputShape& input_shape() const { return input_shape_; }
  std::int64_t class_count() const { return class_count_; }
  std::int64_t feature_count() const { return head_->weight().size(1); }

 protected:
  Classifier(const InputShape& input_shape, std::int64_t class_count)
      : input_shape_(input_shape), class_count_(class_count) {}
  /// To be called once, after all other layers are registered, so that `fc` comes last as in torchvision.
  void add_head(std::int64_t feature_count);
  virtual at::Tensor compute_features(const at::Tensor& images) = 0;

 private:
  InputShape input_shape_;
  std::int64_t class_count_;
  std::shared_ptr<Linear> head_;
};

/// Number of parameters (buffers not counted).
std::int64_t parameter_count(const Module& module);

}  // namespace sage
