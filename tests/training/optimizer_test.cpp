#include "training/optimizer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

at::Tensor random_tensor(at::IntArrayRef sizes, at::ScalarType type, const char* name, std::uint64_t a) {
  at::Tensor tensor = at::empty(sizes, at::kDouble);
  RandomStream random(11, name, a);
  double* values = tensor.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) values[i] = random.normal();
  return tensor.to(type);
}

std::vector<NamedTensor> make_parameters(at::ScalarType type) {
  std::vector<NamedTensor> parameters;
  parameters.push_back(
      {"conv.weight", random_tensor({4, 3, 3, 3}, type, "value", 0).contiguous(at::MemoryFormat::ChannelsLast)});
  parameters.push_back({"conv.bias", random_tensor({4}, type, "value", 1)});
  parameters.push_back({"fc.weight", random_tensor({5, 7}, type, "value", 2)});
  for (NamedTensor& parameter : parameters) parameter.tensor.requires_grad_(true);
  return parameters;
}

/// Gradients in the default layout, also where the parameter is channels last.
void set_gradients(std::vector<NamedTensor>& parameters, std::uint64_t step) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& tensor = parameters[i].tensor;
    tensor.mutable_grad() = random_tensor(tensor.sizes(), tensor.scalar_type(), "gradient", step * 10 + i);
  }
}

std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// The update rules one number at a time, in float64, as PyTorch's documentation states them.
class Oracle {
 public:
  explicit Oracle(const TrainingConfig& config) : config_(config) {}
  void step(double& value, double gradient, double& first, double& second, std::int64_t number, double lr) const {
    if (config_.optimizer == "sgd") {
      gradient += config_.weight_decay * value;
      if (config_.momentum != 0.0) {
        first = number == 1 ? gradient : config_.momentum * first + gradient;
        gradient = config_.nesterov ? gradient + config_.momentum * first : first;
      }
      value -= lr * gradient;
      return;
    }
    if (config_.optimizer == "adamw") {
      value -= lr * config_.weight_decay * value;
    } else {
      gradient += config_.weight_decay * value;
    }
    first = config_.beta1 * first + (1.0 - config_.beta1) * gradient;
    second = config_.beta2 * second + (1.0 - config_.beta2) * gradient * gradient;
    const double mean = first / (1.0 - std::pow(config_.beta1, static_cast<double>(number)));
    const double square = second / (1.0 - std::pow(config_.beta2, static_cast<double>(number)));
    value -= lr * mean / (std::sqrt(square) + config_.epsilon);
  }

 private:
  TrainingConfig config_;
};

struct Variant {
  std::string label;
  TrainingConfig config;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](const char* label, auto change) {
    Variant variant{label, {}};
    variant.config.weight_decay = 0.01;
    change(variant.config);
    all.push_back(variant);
  };
  add("sgd, plain", [](TrainingConfig& c) { c.momentum = 0.0; });
  add("sgd, momentum", [](TrainingConfig& c) { c.momentum = 0.9; });
  add("sgd, nesterov", [](TrainingConfig& c) { c.nesterov = true; });
  add("sgd, no decay", [](TrainingConfig& c) { c.weight_decay = 0.0; });
  add("adam", [](TrainingConfig& c) { c.optimizer = "adam"; });
  add("adamw", [](TrainingConfig& c) { c.optimizer = "adamw"; });
  add("adamw, other settings", [](TrainingConfig& c) {
    c.optimizer = "adamw";
    c.beta1 = 0.8;
    c.beta2 = 0.95;
    c.epsilon = 1e-3;
    c.weight_decay = 0.3;
  });
  return all;
}

double rate(std::int64_t step) { return 0.05 / static_cast<double>(1 + step % 4); }

TEST(Optimizer, TwentyStepsAreThoseOfTheFormulas) {
  for (const auto& [label, config] : variants()) {
    for (const auto& [type, tolerance] : {std::pair(at::kDouble, 1e-12), std::pair(at::kFloat, 2e-5)}) {
      auto parameters = make_parameters(type);
      const auto optimizer = make_optimizer(parameters, config);
      const Oracle oracle(config);
      std::vector<std::vector<double>> value, first, second;
      for (const NamedTensor& parameter : parameters) {
        value.push_back(values_of(parameter.tensor));
        first.emplace_back(value.back().size(), 0.0);
        second.emplace_back(value.back().size(), 0.0);
      }
      for (std::int64_t step = 0; step < 20; ++step) {
        set_gradients(parameters, static_cast<std::uint64_t>(step));
        for (std::size_t p = 0; p < parameters.size(); ++p) {
          const auto gradient = values_of(parameters[p].tensor.grad());
          for (std::size_t i = 0; i < gradient.size(); ++i) {
            oracle.step(value[p][i], gradient[i], first[p][i], second[p][i], step + 1, rate(step));
          }
        }
        optimizer->step(rate(step));
      }
      EXPECT_EQ(optimizer->steps(), 20);
      double worst = 0.0, moved = 0.0;
      const auto start = make_parameters(type);
      for (std::size_t p = 0; p < parameters.size(); ++p) {
        const auto got = values_of(parameters[p].tensor), from = values_of(start[p].tensor);
        for (std::size_t i = 0; i < got.size(); ++i) {
          worst = std::max(worst, std::abs(got[i] - value[p][i]) / (1.0 + std::abs(value[p][i])));
          moved = std::max(moved, std::abs(got[i] - from[i]));
        }
      }
      EXPECT_LT(worst, tolerance) << label;
      EXPECT_GT(moved, 0.05) << label;
    }
  }
}

TEST(Optimizer, GoesOnBitForBitAfterASaveAndLoad) {
  for (const auto& [label, config] : variants()) {
    auto parameters = make_parameters(at::kFloat);
    const auto optimizer = make_optimizer(parameters, config);
    const auto run = [](auto& of, auto& with, std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t step = from; step < to; ++step) {
        set_gradients(of, step);
        with->step(0.03);
      }
    };
    run(parameters, optimizer, 0, 7);
    std::vector<NamedTensor> saved, copies;
    for (const NamedTensor& entry : optimizer->state())
      saved.push_back({entry.name, entry.tensor.clone().contiguous()});
    for (const NamedTensor& parameter : parameters) {
      copies.push_back({parameter.name, parameter.tensor.detach().clone().requires_grad_(true)});
    }
    const auto second = make_optimizer(copies, config);
    second->load_state(saved);
    EXPECT_EQ(second->steps(), 7);
    run(parameters, optimizer, 7, 15);
    run(copies, second, 7, 15);
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      EXPECT_TRUE(at::equal(parameters[p].tensor, copies[p].tensor)) << label << ' ' << parameters[p].name;
    }
  }
}

TEST(Optimizer, AnUpdateThatIsNotToBeLeavesNoTrace) {
  const at::Tensor bad = at::ones({1}), good = at::zeros({1});
  for (const auto& [label, config] : variants()) {
    // With gradients full of NaN in between, which are never looked at; and the rate as a tensor.
    auto parameters = make_parameters(at::kFloat), reference = make_parameters(at::kFloat);
    const auto optimizer = make_optimizer(parameters, config), undisturbed = make_optimizer(reference, config);
    std::uint64_t taken = 0;
    for (int step = 0; step < 6; ++step) {
      if (step == 0 || step == 3) {
        set_gradients(parameters, 100);
        for (auto& parameter : parameters) parameter.tensor.mutable_grad().fill_(std::nan(""));
        optimizer->step(0.05, bad);
        continue;
      }
      set_gradients(parameters, taken);
      set_gradients(reference, taken++);
      optimizer->step(at::full({1}, 0.05, at::kFloat), good);
      undisturbed->step(static_cast<double>(0.05F));
    }
    EXPECT_EQ(optimizer->steps(), 4) << label;
    const auto state = optimizer->state(), expected = undisturbed->state();
    for (std::size_t i = 0; i < state.size(); ++i) {
      EXPECT_TRUE(at::equal(state[i].tensor, expected[i].tensor)) << label << ' ' << state[i].name;
    }
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      EXPECT_TRUE(at::equal(parameters[p].tensor, reference[p].tensor)) << label << ' ' << parameters[p].name;
    }
  }
}

TEST(Optimizer, AStateOfAnotherKindIsRefusedAndChangesNothing) {
  TrainingConfig sgd, adam;
  adam.optimizer = "adam";
  auto parameters = make_parameters(at::kFloat);
  const auto first = make_optimizer(parameters, sgd);
  const auto second = make_optimizer(parameters, adam);
  set_gradients(parameters, 1);
  first->step(0.1);
  const at::Tensor before = first->state()[1].tensor.clone();
  const std::string message = message_of<CheckpointError>([&] { first->load_state(second->state()); });
  EXPECT_TRUE(contains(message, "'conv.weight.momentum_buffer' is missing"));
  EXPECT_TRUE(contains(message, "'conv.bias.exp_avg' is unknown"));
  auto wrong = first->state();
  wrong[1].tensor = at::zeros_like(wrong[1].tensor).reshape({-1});
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { first->load_state(wrong); }), "[108] where"));
  EXPECT_EQ(first->steps(), 1);
  EXPECT_TRUE(at::equal(first->state()[1].tensor, before));
}

TEST(Optimizer, ZeroingKeepsTheGradientsPlaces) {
  auto parameters = make_parameters(at::kFloat);
  const auto optimizer = make_optimizer(parameters, {});
  EXPECT_TRUE(contains(message_of<InternalError>([&] { optimizer->step(0.1); }), "'conv.weight' has no gradient"));
  set_gradients(parameters, 1);
  const void* place = parameters[0].tensor.grad().const_data_ptr();
  optimizer->zero_gradients();
  EXPECT_EQ(parameters[0].tensor.grad().const_data_ptr(), place);
  for (const double value : values_of(parameters[0].tensor.grad())) EXPECT_EQ(value, 0.0);
}

TEST(Optimizer, BadSettingsAreNamed) {
  const auto refusal = [](auto change) {
    TrainingConfig config;
    change(config);
    return message_of<ConfigError>([&] { make_optimizer(make_parameters(at::kFloat), config); });
  };
  EXPECT_TRUE(contains(refusal([](TrainingConfig& c) { c.optimizer = "lion"; }), "sgd, adam or adamw"));
  EXPECT_TRUE(contains(refusal([](TrainingConfig& c) { c.nesterov = true, c.momentum = 0.0; }), "momentum"));
  EXPECT_TRUE(contains(refusal([](TrainingConfig& c) { c.weight_decay = -1.0; }), "training.weight_decay"));
  EXPECT_TRUE(contains(refusal([](TrainingConfig& c) { c.optimizer = "adam", c.beta2 = 1.0; }), "training.beta2"));
}

}  // namespace
}  // namespace sage
