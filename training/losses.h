// What training minimises: a loss for each example, chosen by training.loss. Evaluation always reports cross-entropy,
// and selection scores by its gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include "core/config.h"

namespace sage {

/// With z the logits of an example, y its class and p = softmax(z):
///
///   cross_entropy         -log p_y
///   focal                 -(1 - p_y)^gamma log p_y                                 (Lin et al., ICCV 2017, eq. 4)
///   class_balanced_focal  w_y times focal, w_c = (1 - beta) / (1 - beta^n_c) scaled to a sum of C
///                                                                                  (Cui et al., CVPR 2019, eq. 6)
///   ldam                  cross-entropy of z with z_y - m_y in the place of z_y, m_c = margin (n_min / n_c)^(1/4)
///                                                                                  (Cao et al., NeurIPS 2019, eq. 13)
///
/// n_c counts the examples of class c that may be trained on. training.label_smoothing spreads the target: the loss is
/// then its expectation over the smoothed target (the weight w and the margin m stay those of y).
class Loss {
 public:
  virtual ~Loss() = default;
  /// logits [B, C] (float32 or float64), labels int64 [B] -> [B], differentiable. B may be 0.
  virtual at::Tensor of_examples(const at::Tensor& logits, const at::Tensor& labels) const = 0;
  /// Their sum; `weights` [B] scales each example's, undefined stands for ones.
  virtual at::Tensor sum(const at::Tensor& logits, const at::Tensor& labels, const at::Tensor& weights) const;
};

/// `class_counts`: examples of each class that may be trained on. Throws ConfigError for settings out of range, and for
/// a class without examples where the loss depends on the counts.
std::unique_ptr<Loss> make_loss(const TrainingConfig& config, std::span<const std::int64_t> class_counts,
                                at::Device device);

}  // namespace sage
