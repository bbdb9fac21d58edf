#include "training/losses.h"

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

at::Tensor to_tensor(const std::vector<double>& values, at::Device device) {
  return at::tensor(values, at::kDouble).to(device);
}

class CrossEntropy : public Loss {
 public:
  explicit CrossEntropy(double smoothing) : smoothing_(smoothing) {}
  at::Tensor of_examples(const at::Tensor& logits, const at::Tensor& labels) const override {
    return at::cross_entropy_loss(logits, labels, {}, at::Reduction::None, -100, smoothing_);
  }
  at::Tensor sum(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights) const override {
    if (weights.defined()) return Loss::sum(logits, labels, weights);
    return at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum, -100, smoothing_);
  }

 private:
  double smoothing_;
};

/// Cross-entropy with a margin of each class.
class LabelDistributionAwareMargin : public CrossEntropy {
 public:
  /// `margins` float64 [C].
  LabelDistributionAwareMargin(double smoothing, at::Tensor margins)
      : CrossEntropy(smoothing), margins_(std::move(margins)) {}
  at::Tensor of_examples(const at::Tensor& logits, const at::Tensor& labels) const override {
    return CrossEntropy::of_examples(with_margins(logits, labels), labels);
  }
  at::Tensor sum(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights) const override {
    if (weights.defined()) return Loss::sum(logits, labels, weights);
    return CrossEntropy::sum(with_margins(logits, labels), labels, weights);
  }

 private:
  at::Tensor with_margins(const at::Tensor& logits, const at::Tensor& labels) const {
    const at::Tensor margins = margins_.to(logits.scalar_type()).index_select(0, labels);
    return logits.scatter_add(1, labels.unsqueeze(1), -margins.unsqueeze(1));
  }
  at::Tensor margins_;
};

class Focal : public Loss {
 public:
  /// `class_weights` float64 [C]; undefined: ones.
  Focal(double gamma, double smoothing, at::Tensor class_weights)
      : gamma_(gamma), smoothing_(smoothing), class_weights_(std::move(class_weights)) {}

  at::Tensor of_examples(const at::Tensor& logits, const at::Tensor& labels) const override {
    const at::Tensor log_p = at::log_softmax(logits, 1);
    at::Tensor losses;
    if (smoothing_ > 0.0) {
      losses = (1.0 - smoothing_) * focal(log_p.gather(1, labels.unsqueeze(1)).squeeze(1)) +
               smoothing_ * focal(log_p).mean(1);
    } else {
      losses = focal(log_p.gather(1, labels.unsqueeze(1)).squeeze(1));
    }
    return class_weights_.defined() ? losses * class_weights_.to(logits.scalar_type()).index_select(0, labels) : losses;
  }

 private:
  at::Tensor focal(const at::Tensor& log_p) const {
    if (gamma_ == 0.0) return -log_p;
    // 1 - p without cancellation; kept off 0, where a power below 1 has no finite slope.
    const at::Tensor rest = (-log_p.expm1()).clamp_min(1e-12);
    return -(gamma_ == 1.0 ? rest : rest.pow(gamma_)) * log_p;
  }
  double gamma_, smoothing_;
  at::Tensor class_weights_;
};

void expect_all_classes(std::span<const std::int64_t> counts, const std::string& loss) {
  const auto absent = std::find(counts.begin(), counts.end(), 0);
  if (absent == counts.end() && !counts.empty()) return;
  throw ConfigError(fmt::format(
      "training.loss is {}, which weighs classes by their numbers of examples, but class {} has none to train on: use "
      "cross_entropy or focal, or data that hold every class",
      loss, absent - counts.begin()));
}

/// (1 - beta) / (1 - beta^n_c), scaled to a sum of C.
std::vector<double> class_balanced_weights(std::span<const std::int64_t> counts, double beta) {
  std::vector<double> weights;
  double sum = 0.0;
  for (const std::int64_t count : counts) {
    // beta = 0: 1. 1 - beta^n without cancellation for a beta near 1.
    const double rest = beta > 0.0 ? -std::expm1(static_cast<double>(count) * std::log(beta)) : 1.0;
    weights.push_back((1.0 - beta) / rest);
    sum += weights.back();
  }
  for (double& weight : weights) weight *= static_cast<double>(counts.size()) / sum;
  return weights;
}

/// margin (n_min / n_c)^(1/4): the smallest class has the largest margin.
std::vector<double> class_margins(std::span<const std::int64_t> counts, double margin) {
  const auto least = static_cast<double>(*std::min_element(counts.begin(), counts.end()));
  std::vector<double> margins;
  for (const std::int64_t count : counts) {
    margins.push_back(margin * std::pow(least / static_cast<double>(count), 0.25));
  }
  return margins;
}

}  // namespace

at::Tensor Loss::sum(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights) const {
  const at::Tensor losses = of_examples(logits, labels);
  return weights.defined() ? (losses * weights.to(losses.scalar_type())).sum() : losses.sum();
}

std::unique_ptr<Loss> make_loss(const TrainingConfig& config, std::span<const std::int64_t> class_counts,
                                at::Device device) {
  const double smoothing = config.label_smoothing;
  if (config.loss == "cross_entropy") return std::make_unique<CrossEntropy>(smoothing);
  if (config.loss == "focal") return std::make_unique<Focal>(config.focal_gamma, smoothing, at::Tensor());
  if (config.loss == "class_balanced_focal") {
    expect_all_classes(class_counts, config.loss);
    if (!(config.class_balance_beta >= 0.0 && config.class_balance_beta < 1.0)) {
      throw ConfigError(
          fmt::format("training.class_balance_beta is {}: expected a number in [0, 1)", config.class_balance_beta));
    }
    return std::make_unique<Focal>(config.focal_gamma, smoothing,
                                   to_tensor(class_balanced_weights(class_counts, config.class_balance_beta), device));
  }
  if (config.loss == "ldam") {
    expect_all_classes(class_counts, config.loss);
    return std::make_unique<LabelDistributionAwareMargin>(
        smoothing, to_tensor(class_margins(class_counts, config.ldam_margin), device));
  }
  throw ConfigError(
      fmt::format("training.loss is '{}': expected cross_entropy, focal, class_balanced_focal or ldam", config.loss));
}

}  // namespace sage
