#include "models/classifier.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace sage {

at::Tensor Classifier::features(const at::Tensor& images) {
  if (images.dim() != 4 || images.size(1) != input_shape_.channels || images.size(2) != input_shape_.height ||
      images.size(3) != input_shape_.width) {
    throw InternalError(fmt::format("the model takes images [B, {}, {}, {}], but was given [{}]", input_shape_.channels,
                                    input_shape_.height, input_shape_.width, fmt::join(images.sizes(), ", ")));
  }
  return compute_features(images);
}

void Classifier::add_head(std::int64_t feature_count) {
  head_ = register_child("fc", std::make_shared<Linear>(feature_count, class_count_));
}

std::int64_t parameter_count(const Module& module) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

}  // namespace sage
