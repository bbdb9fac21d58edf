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

ClassifierFactors ModelGradientSource::kept_factors(std::span<const std::int64_t> ids) const {
  std::vector<at::Tensor> features, residuals, probabilities;
  for (std::size_t i = 0; i < ids.size();) {
    const auto found = places_.find(ids[i]);
    if (found == places_.end()) return {};
    // The run of ids that lie one behind the other is taken as one slice.
    const Place place = found->second;
    std::int64_t run = 1;
    for (++i; i < ids.size(); ++i, ++run) {
      const auto next = places_.find(ids[i]);
      if (next == places_.end() || next->second.batch != place.batch || next->second.row != place.row + run) break;
    }
    const ClassifierFactors& batch = kept_[place.batch];
    features.push_back(batch.features.narrow(0, place.row, run));
    residuals.push_back(batch.residuals.narrow(0, place.row, run));
    probabilities.push_back(batch.probabilities.narrow(0, place.row, run));
  }
  return {at::cat(features), at::cat(residuals), at::cat(probabilities)};
}

ClassifierFactors ModelGradientSource::factors_of(std::span<const std::int64_t> ids) {
  if (ClassifierFactors kept = kept_factors(ids); kept.features.defined()) return kept;
  const ClassifierFactors factors = gradients_.features_and_residuals(images_.images_of(ids), labels_of(ids));
  if (caching_) {
    for (std::size_t row = 0; row < ids.size(); ++row) {
      places_[ids[row]] = {kept_.size(), static_cast<std::int64_t>(row)};
    }
    kept_.push_back(factors);
  }
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
  if (on) return;
  kept_.clear();
  places_.clear();
}

}  // namespace sage
