// The steps of one epoch: the loop that a run and the training of its proxy share.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "training/checkpoint.h"
#include "training/dropout/dropout.h"
#include "training/experiment.h"
#include "training/interruptions.h"
#include "training/job.h"
#include "training/learner.h"
#include "training/schedule.h"

namespace sage {

struct EpochWork {
  Learner& learner;
  const LearningRateSchedule& schedule;
  PhaseTimer& timer;
  std::span<const std::int64_t> ids;       ///< what the epoch trains on
  std::uint64_t seed = 0;                  ///< of the order and the augmentation
  std::int64_t steps = 0;                  ///< of the whole epoch; at most those that `ids` make
  const char* activity = "";               ///< for whereabouts; a literal
  std::string title;                       ///< for progress and messages: "epoch 3/30"
  Interruptions* interruptions = nullptr;  ///< null: nothing comes between
  ProgressiveDropout* dropout = nullptr;   ///< null: all of each batch is trained on
  std::function<void()> save = {};         ///< ALL ranks: writes a checkpoint; called between two steps
};

/// ALL ranks. Makes the steps of epoch `position.epoch` that are left, and moves `position` on with each; the caller
/// begins the next epoch. Where dropout makes an epoch of fewer steps, the position moves on by `work.steps` all the
/// same: the learning rate of an epoch does not depend on how long the earlier ones were. Throws RunStopped between two
/// steps, CommunicationError where the ranks' parameters differ.
void train_epoch(const Experiment& experiment, Job& job, const EpochWork& work, TrainingPosition& position);

}  // namespace sage
