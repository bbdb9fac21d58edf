#include "training/optimizer.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "training/checkpoint.h"

namespace sage {
namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<NamedTensor> parameters, const TrainingConfig& config)
      : Optimizer(std::move(parameters)),
        momentum_(config.momentum),
        weight_decay_(config.weight_decay),
        nesterov_(config.nesterov) {
    if (momentum_ != 0.0) buffers_ = make_slots("momentum_buffer");
  }

 protected:
  void update(std::vector<at::Tensor>& values, std::vector<at::Tensor>& gradients, const LearningRate& lr,
              const at::Tensor&, const std::optional<at::Tensor>& found_inf) override {
    // Buffers begin at zero, which makes the first step (buffer = gradient) a step like any other.
    std::visit(
        [&](const auto& rate) {
          at::_fused_sgd_(values, gradients, buffers_, weight_decay_, momentum_, rate, /*dampening=*/0.0, nesterov_,
                          /*maximize=*/false, /*is_first_step=*/false, /*grad_scale=*/std::nullopt, found_inf);
        },
        lr);
  }

 private:
  double momentum_, weight_decay_;
  bool nesterov_;
  std::vector<at::Tensor> buffers_;
};

class Adam final : public Optimizer {
 public:
  Adam(std::vector<NamedTensor> parameters, const TrainingConfig& config, bool decoupled_decay)
      : Optimizer(std::move(parameters)), config_(config), decoupled_decay_(decoupled_decay) {
    means_ = make_slots("exp_avg");
    squares_ = make_slots("exp_avg_sq");
    const at::Device device = values().empty() ? at::Device(at::kCPU) : values().front().device();
    step_ = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
    step_of_each_.assign(values().size(), step_);
  }

 protected:
  void update(std::vector<at::Tensor>& values, std::vector<at::Tensor>& gradients, const LearningRate& lr,
              const at::Tensor& step, const std::optional<at::Tensor>& found_inf) override {
    step_.copy_(step[0]);
    const auto fused = [&](const auto& rate, auto kernel) {
      kernel(values, gradients, means_, squares_, no_maxima_, step_of_each_, rate, config_.beta1, config_.beta2,
             config_.weight_decay, config_.epsilon, /*amsgrad=*/false, /*maximize=*/false,
             /*grad_scale=*/std::nullopt, found_inf);
    };
    std::visit(
        [&](const auto& rate) {
          if (decoupled_decay_) {
            fused(rate, [](auto&&... arguments) { at::_fused_adamw_(arguments...); });
          } else {
            fused(rate, [](auto&&... arguments) { at::_fused_adam_(arguments...); });
          }
        },
        lr);
  }

 private:
  TrainingConfig config_;
  bool decoupled_decay_;
  std::vector<at::Tensor> means_, squares_, no_maxima_;
  at::Tensor step_;                       // float32 scalar on the parameters' device, as the kernels want it
  std::vector<at::Tensor> step_of_each_;  // the same tensor for every parameter: all are updated together
};

}  // namespace

Optimizer::Optimizer(std::vector<NamedTensor> parameters) : parameters_(std::move(parameters)) {
  for (const NamedTensor& parameter : parameters_) values_.push_back(parameter.tensor);
  const at::Device device = values_.empty() ? at::Device(at::kCPU) : values_.front().device();
  steps_ = at::zeros({1}, at::TensorOptions(at::kLong).device(device));
}

std::int64_t Optimizer::steps() const { return steps_.item<std::int64_t>(); }

std::vector<at::Tensor> Optimizer::make_slots(const std::string& kind) {
  std::vector<at::Tensor> made;
  for (const NamedTensor& parameter : parameters_) {
    made.push_back(at::zeros_like(parameter.tensor.detach()));
    slots_.push_back({fmt::format("{}.{}", parameter.name, kind), made.back()});
  }
  return made;
}

void Optimizer::step(const LearningRate& lr, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  gradients.reserve(values_.size());
  for (std::size_t i = 0; i < values_.size(); ++i) {
    at::Tensor gradient = values_[i].grad();
    if (!gradient.defined()) throw InternalError(fmt::format("parameter '{}' has no gradient", parameters_[i].name));
    // The kernels walk over memory, not over indices: a gradient of another layout (channels last) is brought over.
    if (gradient.strides() != values_[i].strides()) gradient = at::empty_like(values_[i]).copy_(gradient);
    gradients.push_back(std::move(gradient));
  }
  if (found_inf.defined()) {
    steps_.add_(found_inf.eq(0));
    update(values_, gradients, lr, steps_, found_inf);
  } else {
    steps_.add_(1);
    update(values_, gradients, lr, steps_, std::nullopt);
  }
}

void Optimizer::zero_gradients() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& value : values_) {
    if (value.grad().defined()) gradients.push_back(value.grad());
  }
  if (!gradients.empty()) at::_foreach_zero_(gradients);
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all{{"step", steps_}};
  all.insert(all.end(), slots_.begin(), slots_.end());
  return all;
}

void Optimizer::load_state(std::span<const NamedTensor> state) {
  load_tensors(this->state(), state, "the optimizer state");
}

std::unique_ptr<Optimizer> make_optimizer(std::vector<NamedTensor> parameters, const TrainingConfig& config) {
  const auto check = [](bool valid, const char* key, double value, const char* expected) {
    if (!valid) throw ConfigError(fmt::format("training.{} = {}: expected {}", key, value, expected));
  };
  check(config.weight_decay >= 0.0, "weight_decay", config.weight_decay, "0 or more");
  if (config.optimizer == "sgd") {
    check(config.momentum >= 0.0, "momentum", config.momentum, "0 or more");
    if (config.nesterov && config.momentum == 0.0) {
      throw ConfigError("training.nesterov = true needs training.momentum above 0");
    }
    return std::make_unique<Sgd>(std::move(parameters), config);
  }
  if (config.optimizer == "adam" || config.optimizer == "adamw") {
    check(config.beta1 >= 0.0 && config.beta1 < 1.0, "beta1", config.beta1, "a value in [0, 1)");
    check(config.beta2 >= 0.0 && config.beta2 < 1.0, "beta2", config.beta2, "a value in [0, 1)");
    check(config.epsilon >= 0.0, "epsilon", config.epsilon, "0 or more");
    return std::make_unique<Adam>(std::move(parameters), config, config.optimizer == "adamw");
  }
  throw ConfigError(fmt::format("training.optimizer = '{}': expected sgd, adam or adamw", config.optimizer));
}

}  // namespace sage
