#include "models/classifier.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"
#include "models/blocks.h"

namespace sage {
namespace {

/// While it lives, the layers that draw noise multiply with their columns of `noise`.
class GivenNoise {
 public:
  GivenNoise(const std::vector<std::pair<std::string, Noise*>>& layers, const at::Tensor& noise) : layers_(layers) {
    std::int64_t first = 0;
    for (const auto& [name, layer] : layers_) {
      layer->set(noise.narrow(1, first, layer->width()));
      first += layer->width();
    }
  }
  ~GivenNoise() {
    for (const auto& [name, layer] : layers_) layer->set({});
  }
  GivenNoise(const GivenNoise&) = delete;
  GivenNoise& operator=(const GivenNoise&) = delete;

 private:
  const std::vector<std::pair<std::string, Noise*>>& layers_;
};

}  // namespace

at::Tensor Classifier::features(const at::Tensor& images) {
  if (images.dim() != 4 || images.size(1) != input_shape_.channels || images.size(2) != input_shape_.height ||
      images.size(3) != input_shape_.width) {
    throw InternalError(fmt::format("the model takes images [B, {}, {}, {}], but was given [{}]", input_shape_.channels,
                                    input_shape_.height, input_shape_.width, fmt::join(images.sizes(), ", ")));
  }
  const at::Tensor features = compute_features(images);
  return dropout_ ? dropout_->forward(features) : features;
}

at::Tensor Classifier::forward(const at::Tensor& images, const at::Tensor& noise) {
  if (!noise.defined()) return forward(images);
  if (noise.dim() != 2 || noise.size(0) != images.size(0) || noise.size(1) != noise_width()) {
    throw InternalError(fmt::format("noise for {} images should be [{}, {}], but is [{}]", images.size(0),
                                    images.size(0), noise_width(), fmt::join(noise.sizes(), ", ")));
  }
  const GivenNoise given(noise_layers(), noise);
  return forward(images);
}

const std::vector<std::pair<std::string, Noise*>>& Classifier::noise_layers() {
  if (!noise_layers_) {
    noise_layers_.emplace();
    for (const auto& [name, module] : named_modules()) {
      auto* layer = dynamic_cast<Noise*>(module);
      if (layer != nullptr && layer->width() > 0) noise_layers_->emplace_back(name, layer);
    }
  }
  return *noise_layers_;
}

std::int64_t Classifier::noise_width() {
  std::int64_t width = 0;
  for (const auto& [name, layer] : noise_layers()) width += layer->width();
  return width;
}

void Classifier::write_noise(std::uint64_t seed, std::int64_t step, std::span<const std::int64_t> ids,
                             at::Tensor rows) {
  const std::int64_t width = noise_width(), count = static_cast<std::int64_t>(ids.size());
  require(rows.scalar_type() == at::kFloat && rows.device().is_cpu() && rows.is_contiguous() &&
              rows.sizes() == at::IntArrayRef({count, width}),
          "noise is written to float32 [examples, noise_width()] on the CPU");
  float* factors = rows.mutable_data_ptr<float>();
  const auto& layers = noise_layers();
  at::parallel_for(0, count, 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      float* to = factors + b * width;
      for (const auto& [name, layer] : layers) {
        layer->draw(seed, name, step, ids[static_cast<std::size_t>(b)], to);
        to += layer->width();
      }
    }
  });
}

void Classifier::add_head(std::int64_t feature_count, const HeadOptions& options) {
  head_ = std::make_shared<Linear>(feature_count, class_count_, options.linear);
  head_name_ = options.name;
  const std::size_t dot = options.name.find('.');
  if (dot == std::string::npos) {
    require(options.dropout == 0.0, "dropout before the head has its name in the head's sequence");
    register_child(options.name, head_);
    return;
  }
  const auto group = register_child(options.name.substr(0, dot), std::make_shared<Sequence>());
  if (options.dropout > 0) {
    dropout_ = std::make_shared<Noise>(options.dropout, feature_count);
    group->append("0", dropout_);
  }
  group->append(options.name.substr(dot + 1), head_);
}

std::int64_t parameter_count(const Module& module) {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

}  // namespace sage
