// A gradient source for tests: a linear softmax classifier on synthetic features, some labels wrong on purpose.
// Gradients are computed example by example, so that they do not depend on the batch.
#pragma once
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "core/random.h"
#include "selection/gradient_source.h"

namespace sage::testing {

class ClassifierSource : public GradientSource {
 public:
  /// `noise`: fraction of labels that are wrong. `spread`: of the features around their class.
  ClassifierSource(std::int64_t examples, std::int64_t classes, std::int64_t features, double noise, std::uint64_t seed,
                   double spread = 0.6)
      : classes_(classes), features_(features) {
    RandomStream centre_stream(seed, "centres");
    std::vector<double> centres(static_cast<std::size_t>(classes * features));
    for (double& value : centres) value = centre_stream.normal();
    rows_ = at::zeros({examples, features}, at::kFloat);
    gradients_ = at::zeros({examples, dimension()}, at::kFloat);
    probabilities_ = at::zeros({examples, classes}, at::kFloat);
    float* g = gradients_.mutable_data_ptr<float>();
    float* p = probabilities_.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < examples; ++i) {
      RandomStream stream(seed, "example", static_cast<std::uint64_t>(i));
      const auto truth = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(classes)));
      std::int64_t label = truth;
      if (stream.uniform() < noise) {
        label =
            (truth + 1 + static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(classes - 1)))) % classes;
      }
      labels.push_back(label);
      wrong.push_back(label != truth);
      std::vector<double> h, logits;
      for (std::int64_t f = 0; f < features; ++f) {
        h.push_back(centres[static_cast<std::size_t>(truth * features + f)] + spread * stream.normal());
      }
      double largest = -1e300, sum = 0.0;
      for (std::int64_t c = 0; c < classes; ++c) {
        double logit = 0.0;
        for (std::int64_t f = 0; f < features; ++f) {
          const double centre = centres[static_cast<std::size_t>(c * features + f)];
          logit += 0.5 * centre * (h[static_cast<std::size_t>(f)] - 0.5 * centre);
        }
        logits.push_back(logit);
        largest = std::max(largest, logit);
      }
      for (double& logit : logits) sum += logit = std::exp(logit - largest);
      for (std::int64_t f = 0; f < features; ++f) {
        rows_.mutable_data_ptr<float>()[i * features + f] = static_cast<float>(h[static_cast<std::size_t>(f)]);
      }
      h.push_back(1.0);
      for (std::int64_t c = 0; c < classes; ++c) {
        const double probability = logits[static_cast<std::size_t>(c)] / sum;
        p[i * classes + c] = static_cast<float>(probability);
        const double r = probability - (c == label ? 1.0 : 0.0);
        for (double value : h) *g++ = static_cast<float>(r * value);
      }
    }
  }

  std::int64_t dimension() const override { return classes_ * (features_ + 1); }
  std::int64_t class_count() const override { return classes_; }
  at::Device device() const override { return at::kCPU; }

  void gradients(std::span<const std::int64_t> ids, at::Tensor rows, at::Tensor probabilities) override {
    ++gradient_calls;
    ++model_runs;
    if (caching) kept_.insert(ids.begin(), ids.end());
    examples_seen += static_cast<std::int64_t>(ids.size());
    rows.copy_(gradients_.index_select(0, index(ids)));
    if (probabilities.defined()) probabilities.copy_(probabilities_.index_select(0, index(ids)));
  }
  at::Tensor project(std::span<const std::int64_t> ids, const at::Tensor& sketch, at::Tensor squared_norms,
                     at::Tensor probabilities) override {
    ++project_calls;
    if (!can_cache || kept_.count(ids[0]) == 0) ++model_runs;
    if (caching) kept_.insert(ids.begin(), ids.end());
    const at::Tensor rows = gradients_.index_select(0, index(ids));
    if (squared_norms.defined()) squared_norms.copy_(rows.to(at::kDouble).square().sum(1));
    if (probabilities.defined()) probabilities.copy_(probabilities_.index_select(0, index(ids)));
    return at::mm(rows.to(sketch.scalar_type()), sketch.t()).to(at::kFloat);
  }
  std::int64_t feature_count() const override { return features_; }
  /// Of what was made at first: changes of matrix() do not show.
  ExampleFactors factors(std::span<const std::int64_t> ids) override {
    factor_examples_seen += static_cast<std::int64_t>(ids.size());
    const at::Tensor probabilities = probabilities_.index_select(0, index(ids));
    const at::Tensor residuals = probabilities.clone();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      residuals[static_cast<std::int64_t>(i)][labels[static_cast<std::size_t>(ids[i])]].sub_(1.0);
    }
    return {rows_.index_select(0, index(ids)), residuals, probabilities};
  }
  std::int64_t cacheable_bytes_per_example() const override { return can_cache ? 4 * (features_ + classes_) : 0; }
  void set_caching(bool on) override {
    caching = on;
    if (!on) kept_.clear();
  }

  at::Tensor& matrix() { return gradients_; }
  at::Tensor& features() { return rows_; }                ///< [examples, F]
  at::Tensor& probabilities() { return probabilities_; }  ///< [examples, C]

  std::vector<std::int64_t> labels;
  std::vector<bool> wrong;
  std::int64_t gradient_calls = 0, project_calls = 0, examples_seen = 0;
  std::int64_t factor_examples_seen = 0;
  std::int64_t model_runs = 0;  ///< of these calls those that what was kept did not spare
  bool can_cache = true;
  bool caching = false;

 private:
  static at::Tensor index(std::span<const std::int64_t> ids) {
    return at::from_blob(const_cast<std::int64_t*>(ids.data()), {static_cast<std::int64_t>(ids.size())}, at::kLong);
  }
  std::int64_t classes_, features_;
  std::set<std::int64_t> kept_;
  at::Tensor gradients_, probabilities_, rows_;
};

}  // namespace sage::testing
