// What stands between a loss and the update of the weights: whether anything is not finite, the scaling of losses that
// fp16 needs, and the clipping of gradients. All on the device, waiting for nothing.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "core/named_tensor.h"

namespace sage {

/// Dynamic loss scaling (Micikevicius et al., "Mixed Precision Training", ICLR 2018) by the rule of PyTorch's
/// GradScaler: after a step that is not finite the scale is halved, after 2000 finite ones in a row doubled. Without
/// scaling the scale is 1 and stays so; what is not finite is found all the same.
class LossScaler {
 public:
  LossScaler(bool scaling, double initial_scale, at::Device device);

  /// The gradient that the backward pass of `loss` (a scalar) starts from: `factor` times the scale; not finite where
  /// the loss is not, so that all gradients become so.
  at::Tensor seed(const at::Tensor& loss, double factor) const;
  /// Takes the scale out of the gradients, in place, and notes whether one of their values is not finite.
  void unscale(std::vector<at::Tensor>& gradients);
  /// At the end of the step.
  void update();

  /// float32 [1]: 1 where a value of the last unscale() was not finite, else 0. As optimizers want it.
  const at::Tensor& found_inf() const { return found_inf_; }
  /// float32 [2]: found_inf and the scale, the same memory.
  const at::Tensor& status() const { return status_; }
  bool is_scaling() const { return scaling_; }

  /// The live tensors "scaler.scale" (float32 [1]) and "scaler.growth" (int32 [1]: finite steps since the last change).
  /// None without scaling.
  std::vector<NamedTensor> state() const;

 private:
  bool scaling_;
  at::Tensor status_, found_inf_, scale_, growth_, one_;
};

/// Scales gradients down, in place, where their Euclidean norm over all of them is above `largest_norm`: by
/// min(1, largest_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does.
void clip_gradients(std::vector<at::Tensor>& gradients, double largest_norm);

}  // namespace sage
