// Optimizers over LibTorch's fused kernels, with their state in plain named tensors. No LibTorch optimizer class: those
// keep state behind pointers and call detach_() on gradients, which bucket views of a Reducer refuse.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"

namespace sage {

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// One update of all parameters from their gradients, with learning rate `lr`. Every parameter must have a gradient
  /// (InternalError otherwise, naming it).
  void step(double lr);
  /// Sets all gradients to zero in place; never releases them (they may be views of a Reducer's buckets).
  void zero_gradients();
  /// Number of updates so far, those before a resume included.
  std::int64_t steps() const { return steps_; }

  /// "step" (int64, one value), then "<parameter>.<kind>" with kind momentum_buffer (SGD with momentum), or exp_avg and
  /// exp_avg_sq (Adam, AdamW), shaped as the parameter. The tensors are the live ones.
  std::vector<NamedTensor> state() const;
  /// Copies a state in. Throws CheckpointError, changing nothing, where a name is missing or unknown or a shape or type
  /// differs: a state of another optimizer or model.
  void load_state(std::span<const NamedTensor> state);

 protected:
  explicit Optimizer(std::vector<NamedTensor> parameters);
  /// One zero-filled tensor per parameter, laid out like it, saved as "<parameter>.<kind>".
  std::vector<at::Tensor> make_slots(const std::string& kind);
  virtual void update(std::vector<at::Tensor>& values, std::vector<at::Tensor>& gradients, double lr) = 0;
  /// After load_state: what an optimizer derives from steps().
  virtual void steps_changed() {}
  const std::vector<at::Tensor>& values() const { return values_; }

 private:
  std::vector<NamedTensor> parameters_;
  std::vector<at::Tensor> values_;
  std::vector<NamedTensor> slots_;
  std::int64_t steps_ = 0;
};

/// By `config.optimizer`: "sgd" (momentum, nesterov), "adam" or "adamw". Weight decay acts on all parameters, as in
/// PyTorch: added to the gradient (SGD, Adam), or decoupled (AdamW; Loshchilov and Hutter, ICLR 2019). `parameters` are
/// leaves, of one device and floating-point type. Throws ConfigError for another name or settings out of range.
std::unique_ptr<Optimizer> make_optimizer(std::vector<NamedTensor> parameters, const TrainingConfig& config);

}  // namespace sage
