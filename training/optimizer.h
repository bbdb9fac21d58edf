// Optimizers over LibTorch's fused kernels, with their state in plain named tensors. No LibTorch optimizer class: those
// keep state behind pointers and call detach_() on gradients, which bucket views of a Reducer refuse.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"

namespace sage {

/// A number, or (where a recorded step is replayed with changing rates) a float32 tensor [1] on the device.
using LearningRate = std::variant<double, at::Tensor>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// One update of all parameters from their gradients, with learning rate `lr`. Every parameter must have a gradient
  /// (InternalError otherwise, naming it). `found_inf` (float32 [1] on the parameters' device, or undefined): where it
  /// is 1 nothing changes, the number of updates included; it is looked at on the device, without waiting.
  void step(const LearningRate& lr, const at::Tensor& found_inf = {});
  /// Sets all gradients to zero in place; never releases them (they may be views of a Reducer's buckets).
  void zero_gradients();
  /// Number of updates so far, those before a resume included. Waits for the device.
  std::int64_t steps() const;

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
  /// `step` (int64 [1], on the device) counts this update already.
  virtual void update(std::vector<at::Tensor>& values, std::vector<at::Tensor>& gradients, const LearningRate& lr,
                      const at::Tensor& step, const std::optional<at::Tensor>& found_inf) = 0;
  const std::vector<at::Tensor>& values() const { return values_; }

 private:
  std::vector<NamedTensor> parameters_;
  std::vector<at::Tensor> values_;
  std::vector<NamedTensor> slots_;
  at::Tensor steps_;  // int64 [1] on the device, which alone knows of skipped updates
};

/// By `config.optimizer`: "sgd" (momentum, nesterov), "adam" or "adamw". Weight decay acts on all parameters, as in
/// PyTorch: added to the gradient (SGD, Adam), or decoupled (AdamW; Loshchilov and Hutter, ICLR 2019). `parameters` are
/// leaves, of one device and floating-point type. Throws ConfigError for another name or settings out of range.
std::unique_ptr<Optimizer> make_optimizer(std::vector<NamedTensor> parameters, const TrainingConfig& config);

}  // namespace sage
