// What every network of the project is: features of an image, and one Linear layer on top of them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/layers.h"
#include "models/module.h"
#include "models/noise.h"

namespace sage {

struct InputShape {
  std::int64_t channels = 0, height = 0, width = 0;
};

/// The last layer of a network: its dotted name (torchvision's), how it starts, and the part of the features that
/// dropout leaves out before it in training.
struct HeadOptions {
  std::string name = "fc";
  LinearOptions linear = {};
  double dropout = 0.0;
};

class Classifier : public Module {
 public:
  /// images [B, channels, height, width] of input_shape() -> [B, feature_count()]. Another shape is an InternalError.
  at::Tensor features(const at::Tensor& images);
  /// features [B, feature_count()] -> [B, class_count()].
  at::Tensor logits(const at::Tensor& features) { return head_->forward(features); }
  /// images -> logits, without noise: the same in each pass, but for batch statistics in training mode.
  at::Tensor forward(const at::Tensor& images) { return logits(features(images)); }
  /// The same with the dropout and stochastic depth of a training step: `noise` [B, noise_width()] is what
  /// write_noise() made, on the images' device. Undefined: none. In eval mode noise does nothing.
  at::Tensor forward(const at::Tensor& images, const at::Tensor& noise);

  /// Values of noise that an example takes in a training step; 0 for a network without dropout and stochastic depth.
  std::int64_t noise_width();
  /// The factors of the examples `ids` in step `step`, into `rows`: float32 [ids, noise_width()], CPU, contiguous. Row
  /// b is a pure function of (seed, step, ids[b]) and the layers' names.
  void write_noise(std::uint64_t seed, std::int64_t step, std::span<const std::int64_t> ids, at::Tensor rows);

  /// The last layer, under torchvision's name: what the gradient scope `classifier` means.
  Linear& head() { return *head_; }
  const std::string& head_name() const { return head_name_; }
  const InputShape& input_shape() const { return input_shape_; }
  std::int64_t class_count() const { return class_count_; }
  std::int64_t feature_count() const { return head_->weight().size(1); }

 protected:
  Classifier(const InputShape& input_shape, std::int64_t class_count)
      : input_shape_(input_shape), class_count_(class_count) {}
  /// To be called once, after all other layers are registered, so that the head comes last as in torchvision.
  void add_head(std::int64_t feature_count, const HeadOptions& options = {});
  virtual at::Tensor compute_features(const at::Tensor& images) = 0;

 private:
  const std::vector<std::pair<std::string, Noise*>>& noise_layers();
  InputShape input_shape_;
  std::int64_t class_count_;
  std::string head_name_;
  std::shared_ptr<Linear> head_;
  std::shared_ptr<Noise> dropout_;  // null: none
  std::optional<std::vector<std::pair<std::string, Noise*>>> noise_layers_;
};

/// Number of parameters (buffers not counted).
std::int64_t parameter_count(const Module& module);

}  // namespace sage
