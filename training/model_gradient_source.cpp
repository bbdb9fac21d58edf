#include "training/model_gradient_source.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace sage {
namespace {
constexpr std::int32_t kept_rows = 8192;
}

ModelGradientSource::ModelGradientSource(Classifier& network, const ImageStore& images,
                                         std::span<const std::int64_t> labels, const SelectionConfig& config,
                                         double label_smoothing)
    : network_(network),
      images_(images),
      labels_(labels),
      gradients_(network, config.gradient.scope, label_smoothing, config.gradient.chunk_size),
      head_gradients_(network, {"classifier"}, label_smoothing, config.gradient.chunk_size),
      feature_type_(config.cache_precision == "bf16" ? at::kBFloat16 : at::kFloat) {}

at::Tensor ModelGradientSource::labels_of(std::span<const std::int64_t> ids) const {
  std::vector<std::int64_t> values;
  values.reserve(ids.size());
  for (auto id : ids) values.push_back(labels_[static_cast<std::size_t>(id)]);
  return to_device(values, images_.device());
}

ClassifierFactors ModelGradientSource::kept_factors(std::span<const std::int64_t> ids) const {
  if (row_of_id_.empty()) return {};
  const auto row_of = [&](std::size_t i) { return row_of_id_[static_cast<std::size_t>(ids[i])]; };
  std::vector<at::Tensor> features, outputs;
  for (std::size_t i = 0; i < ids.size();) {
    // The run of ids that lie one behind the other is taken as one slice.
    const std::int32_t first = row_of(i);
    if (first < 0) return {};
    std::int32_t count = 1;
    for (++i; i < ids.size() && row_of(i) == first + count && row_of(i) % kept_rows != 0; ++i) ++count;
    const auto part = static_cast<std::size_t>(first / kept_rows);
    features.push_back(kept_features_[part].narrow(0, first % kept_rows, count));
    outputs.push_back(kept_outputs_[part].narrow(0, first % kept_rows, count));
  }
  const at::Tensor both = at::cat(outputs);
  const std::int64_t classes = network_.class_count();
  return {at::cat(features).to(at::kFloat), both.narrow(1, 0, classes).contiguous(),
          both.narrow(1, classes, classes).contiguous()};
}

ClassifierFactors ModelGradientSource::factors_of(std::span<const std::int64_t> ids) {
  if (ClassifierFactors kept = kept_factors(ids); kept.features.defined()) return kept;
  const ClassifierFactors factors = gradients_.features_and_residuals(images_.images_of(ids), labels_of(ids));
  if (!caching_) return factors;
  const auto total = static_cast<std::int64_t>(ids.size());
  for (std::int64_t done = 0; done < total;) {
    const std::int64_t row = kept_count_ % kept_rows, count = std::min<std::int64_t>(kept_rows - row, total - done);
    if (row == 0) {
      const at::TensorOptions options = factors.features.options();
      kept_features_.push_back(at::empty({kept_rows, network_.feature_count()}, options.dtype(feature_type_)));
      kept_outputs_.push_back(at::empty({kept_rows, 2 * network_.class_count()}, options));
    }
    kept_features_.back().narrow(0, row, count).copy_(factors.features.narrow(0, done, count));
    const at::Tensor outputs = kept_outputs_.back().narrow(0, row, count);
    outputs.narrow(1, 0, network_.class_count()).copy_(factors.residuals.narrow(0, done, count));
    outputs.narrow(1, network_.class_count(), network_.class_count())
        .copy_(factors.probabilities.narrow(0, done, count));
    for (std::int64_t i = 0; i < count; ++i) {
      row_of_id_[static_cast<std::size_t>(ids[static_cast<std::size_t>(done + i)])] = kept_count_++;
    }
    done += count;
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
  if (ids.empty()) return at::zeros({0, sketch.size(0)}, sketch.options().dtype(at::kFloat));
  if (!gradients_.is_forward_only()) {
    return gradients_.project(images_.images_of(ids), labels_of(ids), sketch, squared_norms, probabilities);
  }
  const ClassifierFactors factors = factors_of(ids);
  if (probabilities.defined()) probabilities.copy_(factors.probabilities);
  return gradients_.project_from_factors(factors.features, factors.residuals, sketch, squared_norms);
}

ExampleFactors ModelGradientSource::factors(std::span<const std::int64_t> ids) {
  ClassifierFactors made = head_gradients_.features_and_residuals(images_.images_of(ids), labels_of(ids));
  return {std::move(made.features), std::move(made.residuals), std::move(made.probabilities)};
}

std::int64_t ModelGradientSource::cacheable_bytes_per_example() const {
  if (!gradients_.is_forward_only()) return 0;
  return network_.feature_count() * static_cast<std::int64_t>(at::elementSize(feature_type_)) +
         2 * network_.class_count() * static_cast<std::int64_t>(sizeof(float));
}

void ModelGradientSource::set_caching(bool on) {
  caching_ = on && gradients_.is_forward_only();
  kept_features_.clear();
  kept_outputs_.clear();
  kept_count_ = 0;
  row_of_id_.assign(caching_ ? static_cast<std::size_t>(images_.size()) : 0, -1);
}

}  // namespace sage
