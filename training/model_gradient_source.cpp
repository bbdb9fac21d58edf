#include "training/model_gradient_source.h"

namespace sage {

ModelGradientSource::ModelGradientSource(Classifier& network, const ImageStore& images,
                                         std::span<const std::int64_t> labels, const SelectionConfig& config,
                                         double label_smoothing)
    : network_(network),
      images_(images),
      labels_(labels),
      gradients_(network, config.gradient.scope, label_smoothing, config.gradient.chunk_size) {}

at::Tensor ModelGradientSource::labels_of(std::span<const std::int64_t> ids) const {
  std::vector<std::int64_t> values;
  values.reserve(ids.size());
  for (auto id : ids) values.push_back(labels_[static_cast<std::size_t>(id)]);
  return to_device(values, images_.device());
}

ClassifierFactors ModelGradientSource::factors_of(std::span<const std::int64_t> ids) {
  if (const auto found = cache_.find(ids.front());
      found != cache_.end() && std::equal(ids.begin(), ids.end(), found->second.ids.begin(), found->second.ids.end())) {
    return found->second.factors;
  }
  const ClassifierFactors factors = gradients_.features_and_residuals(images_.images_of(ids), labels_of(ids));
  if (caching_) cache_[ids.front()] = {{ids.begin(), ids.end()}, factors};
  return factors;
}

void ModelGradientSource::gradients(std::span<const std::int64_t> ids, at::Tensor rows, at::Tensor probabilities) {
  if (ids.empty()) return;
  // A sketch that is kept elsewhere (selection.compression) gets a copy.
  const bool here = rows.device() == device();
  at::Tensor target = here ? rows : at::empty(rows.sizes(), rows.options().device(device()));
  if (gradients_.is_forward_only()) {
    const ClassifierFactors factors = factors_of(ids);
    gradients_.write_from_factors(factors.features, factors.residuals, target);
    if (probabilities.defined()) probabilities.copy_(factors.probabilities);
  } else {
    gradients_.write(images_.images_of(ids), labels_of(ids), target, probabilities);
  }
  if (!here) rows.copy_(target);
}

at::Tensor ModelGradientSource::project(std::span<const std::int64_t> ids, const at::Tensor& sketch,
                                        at::Tensor squared_norms, at::Tensor probabilities) {
  if (ids.empty()) return at::zeros({0, sketch.size(0)}, sketch.options());
  if (!gradients_.is_forward_only()) {
    return gradients_.project(images_.images_of(ids), labels_of(ids), sketch, squared_norms, probabilities);
  }
  const ClassifierFactors factors = factors_of(ids);
  if (probabilities.defined()) probabilities.copy_(factors.probabilities);
  return gradients_.project_from_factors(factors.features, factors.residuals, sketch, squared_norms);
}

std::int64_t ModelGradientSource::cacheable_bytes_per_example() const {
  if (!gradients_.is_forward_only()) return 0;
  const auto floats = network_.feature_count() + 2 * network_.class_count();  // features, residuals, probabilities
  return floats * static_cast<std::int64_t>(sizeof(float));
}

void ModelGradientSource::set_caching(bool on) {
  caching_ = on;
  if (!on) cache_.clear();
}

}  // namespace sage
