// The learning rate as a pure function of the step, so that a resumed run needs no schedule state.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"

namespace sage {

/// Linear warm-up over `lr_warmup_epochs`: step s < W gets (s + 1) / W of the schedule's value. Then
///   cosine:    min_lr + (lr - min_lr) (1 + cos(pi t)) / 2, t from 0 at the end of warm-up to 1 at the last step's end
///              (Loshchilov and Hutter, ICLR 2017, one cycle);
///   step:      lr gamma^k, k = number of whole `step_size` epochs done;
///   multistep: lr gamma^k, k = number of `milestones` (epochs) reached;
///   constant:  lr.
/// step and multistep do not fall below min_lr. Steps count from 0.
/// `config` with training.lr scaled by the number of ranks, or its square root, as training.lr_scaling says. For where
/// the global batch grows with the ranks (training.batch_size_per_rank).
TrainingConfig with_scaled_rate(TrainingConfig config, int ranks);

class LearningRateSchedule {
 public:
  /// Epochs of equal length. With `config.steps` > 0 that many steps are the whole run, and the epochs in which the
  /// configuration counts (warm-up, step_size, milestones) are the same fractions of the run as they are of
  /// `config.epochs`: a milestone at epoch 15 of 30 lies at half of the steps, however many examples were selected.
  LearningRateSchedule(const TrainingConfig& config, std::int64_t steps_per_epoch);
  /// Epochs of differing length (full data, then a subset): steps_of_epoch[e] optimizer steps in epoch e. With
  /// `config.steps` > 0 only their sum counts, and the rest is as above: methods with subsets of any size then share
  /// one recipe.
  LearningRateSchedule(const TrainingConfig& config, std::span<const std::int64_t> steps_of_epoch);

  /// Learning rate of step `step` (0-based). Past the last step the last value stays.
  double at(std::int64_t step) const;
  std::int64_t total_steps() const { return total_steps_; }
  /// Length of the warm-up in steps; a fraction where the epochs are one.
  double warmup_steps() const { return warmup_steps_; }

 private:
  void check() const;
  /// Position of a point of time given in (fractional) epochs, in steps.
  double step_of(double epoch) const;

  TrainingConfig config_;
  std::vector<std::int64_t> first_step_;  // of each epoch, and the total at the end; empty where epochs are equal
  std::int64_t total_steps_ = 0;
  std::int64_t epochs_ = 0;
  double warmup_steps_ = 0.0;
  std::vector<double> boundaries_;  // in steps, ascending: where the rate is multiplied by gamma
};

}  // namespace sage
