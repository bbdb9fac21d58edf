// The steps of one epoch: the loop that a run and the training of its proxy share.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "data/loader.h"
#include "training/checkpoint.h"
#include "training/dropout/dropout.h"
#include "training/experiment.h"
#include "training/forgetting.h"
#include "training/interruptions.h"
#include "training/job.h"
#include "training/learner.h"
#include "training/schedule.h"

namespace sage {

/// Batches that are made one by one, in the place of an epoch's examples in random order.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// ALL ranks. This rank's part of the batch of the step that `position` stands before.
  virtual Batch next(const TrainingPosition& position) = 0;
  /// ALL ranks. `position` stands behind the step now.
  virtual void stepped(const TrainingPosition& position) = 0;
};

struct EpochWork {
  Learner& learner;
  const LearningRateSchedule& schedule;
  PhaseTimer& timer;
  std::span<const std::int64_t> ids;       ///< what the epoch trains on
  std::span<const float> weights = {};     ///< of `ids`, in the same order; empty: all 1
  std::uint64_t seed = 0;                  ///< of the order and the augmentation
  std::int64_t steps = 0;                  ///< of the whole epoch; at most those that `ids` make
  const char* activity = "";               ///< for whereabouts; a literal
  std::string title;                       ///< for progress and messages: "epoch 3/30"
  Interruptions* interruptions = nullptr;  ///< null: nothing comes between
  ForgettingHistory* history = nullptr;    ///< where predictions are noted; the learner watches them then
  ProgressiveDropout* dropout = nullptr;   ///< null: all of each batch is trained on
  std::function<void()> save = {};         ///< ALL ranks: writes a checkpoint; called between two steps
  BatchSource* source = nullptr;           ///< gives the batches, of which each stands for a whole one; null: `ids` do
};

/// The batches of one pass over `ids` from its example number `skip` on, shuffled and augmented by (seed, epoch).
Loader make_loader(const Experiment& experiment, const Communicator& communicator, std::span<const std::int64_t> ids,
                   std::uint64_t seed, std::int64_t epoch, std::int64_t skip, std::int64_t workers);

/// Gives a batch its examples' weights, and those of the examples that are mixed in, from `weights` of `ids`
/// (ascending).
void set_weights(Batch& batch, std::span<const std::int64_t> ids, std::span<const float> weights);

/// ALL ranks. Makes the steps of epoch `position.epoch` that are left, and moves `position` on with each; the caller
/// begins the next epoch. Where dropout makes an epoch of fewer steps, the position moves on by `work.steps` all the
/// same: the learning rate of an epoch does not depend on how long the earlier ones were. Throws RunStopped between two
/// steps, CommunicationError where the ranks' parameters differ.
void train_epoch(const Experiment& experiment, Job& job, const EpochWork& work, TrainingPosition& position);

}  // namespace sage
