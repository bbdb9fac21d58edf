#include "training/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace sage {
namespace {

/// Epochs at which the rate falls, ascending; those beyond `epochs` play no part.
std::vector<double> boundary_epochs(const TrainingConfig& config, std::int64_t epochs) {
  std::vector<double> result;
  if (config.scheduler == "step") {
    if (config.step_size < 1) {
      throw ConfigError(fmt::format("training.step_size = {}: expected 1 or more epochs", config.step_size));
    }
    for (std::int64_t epoch = config.step_size; epoch < epochs; epoch += config.step_size) {
      result.push_back(static_cast<double>(epoch));
    }
  } else if (config.scheduler == "multistep") {
    for (std::int64_t epoch : config.milestones) {
      if (epoch < 0)
        throw ConfigError(fmt::format("training.milestones holds {}: expected epochs of 0 or more", epoch));
      if (epoch < epochs) result.push_back(static_cast<double>(epoch));
    }
    std::sort(result.begin(), result.end());
  } else if (config.scheduler != "cosine" && config.scheduler != "constant") {
    throw ConfigError(
        fmt::format("training.scheduler = '{}': expected cosine, step, multistep or constant", config.scheduler));
  }
  return result;
}

}  // namespace

TrainingConfig with_scaled_rate(TrainingConfig config, int ranks) {
  if (config.lr_scaling == "linear") {
    config.lr *= ranks;
  } else if (config.lr_scaling == "sqrt") {
    config.lr *= std::sqrt(static_cast<double>(ranks));
  } else if (config.lr_scaling != "none") {
    throw ConfigError(fmt::format("training.lr_scaling = '{}': expected none, linear or sqrt", config.lr_scaling));
  }
  return config;
}

LearningRateSchedule::LearningRateSchedule(const TrainingConfig& config, std::int64_t steps_per_epoch)
    : config_(config), epochs_(config.epochs) {
  total_steps_ = config.steps > 0 ? config.steps : config.epochs * steps_per_epoch;
  check();
  warmup_steps_ = step_of(config.lr_warmup_epochs);
  for (double epoch : boundary_epochs(config, epochs_)) boundaries_.push_back(step_of(epoch));
}

LearningRateSchedule::LearningRateSchedule(const TrainingConfig& config, std::span<const std::int64_t> steps_of_epoch)
    : config_(config), epochs_(static_cast<std::int64_t>(steps_of_epoch.size())) {
  for (std::int64_t steps : steps_of_epoch) total_steps_ += steps;
  if (config.steps > 0) {
    epochs_ = config.epochs;  // the recipe is one of steps: it must not depend on how long a subset's epoch is
  } else {
    first_step_.push_back(0);
    for (std::int64_t steps : steps_of_epoch) first_step_.push_back(first_step_.back() + steps);
  }
  check();
  warmup_steps_ = step_of(config.lr_warmup_epochs);
  for (double epoch : boundary_epochs(config, epochs_)) boundaries_.push_back(step_of(epoch));
}

void LearningRateSchedule::check() const {
  if (epochs_ < 1 || total_steps_ < 1) {
    throw ConfigError(
        fmt::format("a learning-rate schedule of {} epochs and {} steps: expected at least one of each "
                    "(training.epochs, training.steps, or more data than one batch)",
                    epochs_, total_steps_));
  }
  if (!(config_.lr_warmup_epochs >= 0.0)) {
    throw ConfigError(fmt::format("training.lr_warmup_epochs = {}: expected 0 or more", config_.lr_warmup_epochs));
  }
}

double LearningRateSchedule::step_of(double epoch) const {
  if (epoch >= static_cast<double>(epochs_)) return static_cast<double>(total_steps_);
  if (first_step_.empty()) {
    // One multiplication and one division: exact where the result is a whole step.
    return epoch * static_cast<double>(total_steps_) / static_cast<double>(epochs_);
  }
  const auto whole = static_cast<std::size_t>(epoch);
  const auto length = static_cast<double>(first_step_[whole + 1] - first_step_[whole]);
  return static_cast<double>(first_step_[whole]) + (epoch - static_cast<double>(whole)) * length;
}

double LearningRateSchedule::at(std::int64_t step) const {
  const double now = static_cast<double>(std::min(step, total_steps_ - 1));
  double rate = config_.lr;
  if (config_.scheduler == "cosine") {
    const double length = static_cast<double>(total_steps_) - warmup_steps_;
    const double t = length > 0.0 ? std::clamp((now - warmup_steps_) / length, 0.0, 1.0) : 0.0;
    rate = config_.min_lr + (config_.lr - config_.min_lr) * 0.5 * (1.0 + std::cos(std::numbers::pi * t));
  } else if (!boundaries_.empty()) {
    const auto reached = std::upper_bound(boundaries_.begin(), boundaries_.end(), now) - boundaries_.begin();
    rate = std::max(config_.lr * std::pow(config_.gamma, static_cast<double>(reached)), config_.min_lr);
  }
  if (now < warmup_steps_) rate *= std::min(1.0, (now + 1.0) / warmup_steps_);
  return rate;
}

}  // namespace sage
