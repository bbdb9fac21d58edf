// Per-example gradients of a network on a data set, as selection asks for them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"
#include "data/image_store.h"
#include "models/per_example_gradients.h"
#include "selection/gradient_source.h"

namespace sage {

/// Gradients of the cross entropy of un-augmented images, the network in eval mode. Where the scope is the classifier
/// alone, features (in selection.cache_precision), residuals and probabilities of the examples can be kept between the
/// passes (set_caching).
class ModelGradientSource : public GradientSource {
 public:
  /// Everything must outlive this object; `labels[id]` is the label to score with.
  ModelGradientSource(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                      const SelectionConfig& config, double label_smoothing);

  std::int64_t dimension() const override { return gradients_.dimension(); }
  std::int64_t class_count() const override { return network_.class_count(); }
  at::Device device() const override { return images_.device(); }
  void gradients(std::span<const std::int64_t> ids, at::Tensor rows, at::Tensor probabilities) override;
  at::Tensor project(std::span<const std::int64_t> ids, const at::Tensor& sketch, at::Tensor squared_norms,
                     at::Tensor probabilities) override;
  std::int64_t feature_count() const override { return network_.feature_count(); }
  ExampleFactors factors(std::span<const std::int64_t> ids) override;
  std::int64_t cacheable_bytes_per_example() const override;
  void set_caching(bool on) override;

 private:
  at::Tensor labels_of(std::span<const std::int64_t> ids) const;
  /// From what is kept where all of `ids` are there, else from the network.
  ClassifierFactors factors_of(std::span<const std::int64_t> ids);
  /// Undefined tensors unless all of `ids` are kept.
  ClassifierFactors kept_factors(std::span<const std::int64_t> ids) const;

  Classifier& network_;
  const ImageStore& images_;
  std::span<const std::int64_t> labels_;
  PerExampleGradients gradients_;
  PerExampleGradients head_gradients_;  // of the last layer alone
  bool caching_ = false;
  // What is kept: rows of features, residuals and probabilities, in a few large tensors and one table. Many small ones
  // between the large tensors that come and go in every pass would leave the heap full of holes. Residuals and
  // probabilities stay float32: where a network is sure, 1 - p has no digits in bfloat16.
  at::ScalarType feature_type_;
  std::vector<at::Tensor> kept_features_;  // [kept_rows, F] each
  std::vector<at::Tensor> kept_outputs_;   // [kept_rows, 2 C] each
  std::vector<std::int32_t> row_of_id_;    // among them; -1: not kept. Empty: nothing is
  std::int32_t kept_count_ = 0;
};

}  // namespace sage
