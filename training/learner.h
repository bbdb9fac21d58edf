// A network with its optimizer and gradient reduction: what makes one training step.
#pragma once
#include <ATen/ops/cat.h>

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/named_tensor.h"
#include "data/loader.h"
#include "distributed/communicator.h"
#include "distributed/data_parallel.h"
#include "training/autocast.h"
#include "training/experiment.h"
#include "training/loss_scaler.h"
#include "training/losses.h"
#include "training/optimizer.h"
#include "training/resources.h"
#include "training/step_graph.h"

namespace sage {

/// Mean loss and accuracy over the examples of all ranks in steps that were taken. A mixed example (CutMix, MixUp)
/// counts as right if the label with the larger part is predicted.
struct EpochTotals {
  double loss = 0.0, accuracy = 0.0;
  std::int64_t examples = 0;
};

/// Throws ConfigError for a precision or a CUDA graph that this device or number of ranks does not allow.
void check_training_step(const TrainingConfig& config, at::Device device, int ranks);

/// How a batch is looked at before a part of it is trained on.
struct Scoring {
  Precision precision = Precision::float32;
  bool in_train_mode = false;  ///< with batch statistics, which move the running ones; else as in evaluation
  bool record = false;         ///< for autograd, so that a step on the whole batch can go on from here
};

struct Scored {
  at::Tensor logits;         ///< float32 or float64 [B, C], without a graph
  at::Tensor recorded;       ///< the same with the graph; undefined where none was recorded
  at::Tensor saved_buffers;  ///< what the pass has moved, as it was before; undefined where it moved nothing
};

class Learner {
 public:
  /// ALL ranks. Starts from the same weights everywhere. `noise_seed`: of dropout and stochastic depth; none: that of
  /// the run. Throws as check_training_step does.
  Learner(const Experiment& experiment, std::shared_ptr<Classifier> network, Communicator& communicator,
          PhaseTimer& timer, std::optional<std::uint64_t> noise_seed = {});
  ~Learner();

  /// One optimizer step on the mean loss of the global batch (with weights: the sum of weight x loss, divided by the
  /// number of examples). ALL ranks, also one whose part is empty. A step with a
  /// loss or gradient that is not finite on any rank is so on all: none updates its weights. Such steps are counted;
  /// after training.non_finite_limit in a row (non_finite=stop: the first) this throws TrainingError on ALL ranks,
  /// naming `where`, the examples and the first bad layer. In fp16 a step counts as such only where the loss scale has
  /// fallen below 1: until then the scaler looks for its place.
  ///
  /// On a GPU nothing here waits for the step: whether it was skipped is looked at two steps later, or in settle().
  ///
  /// `batch.global_count` is what the ranks' batches hold together; batch.weights scale the examples' losses. `scored`:
  /// of score() on these images. Where it was recorded, the step makes no forward pass of its own.
  void step(const Batch& batch, double learning_rate, const std::string& where, const Scored& scored = {});

  /// ALL ranks: what the network says of this rank's part of `batch` (perhaps none), before a step on some of it.
  /// Recording asks for training mode and training.accumulate = 1.
  Scored score(const Batch& batch, const Scoring& how);
  /// Takes back what the scoring pass did to the running statistics.
  void undo(const Scored& scored);
  /// Whether each step keeps the losses of its examples.
  void keep_example_losses(bool on) { keeps_losses_ = on; }
  /// [B] of this rank's part of the last step, without weights; undefined unless they are kept.
  const at::Tensor& example_losses() const { return example_losses_; }

  /// ALL ranks, before the network is evaluated, asked for gradients or saved, and before state(): looks at the steps
  /// that were not looked at yet (and throws as step() does), and gives all ranks the same running statistics.
  void settle();

  Classifier& network() { return *network_; }
  Optimizer& optimizer() { return *optimizer_; }
  /// Of the steps looked at so far.
  std::int64_t skipped_steps() const { return skipped_; }
  /// Mean loss of this rank's part of the last step; waits for the device. NaN where the part was empty.
  double last_loss() const;

  /// From the next step on last_right() tells whether each example of this rank's part was predicted right: bool [B].
  void watch_predictions() { watches_predictions_ = true; }
  at::Tensor last_right() const { return at::cat(right_); }

  /// ALL ranks. Totals since the last call.
  EpochTotals take_totals();

  /// What goes on beside weights, buffers and optimizer, so that a resumed run is bit-equal; call settle() first.
  /// Copies on the CPU: "totals" (float64 [3], of THIS RANK: the one entry that differs between ranks),
  /// "skipped.total", "skipped.in_a_row" (int64 [1]), for a network that draws noise "steps" (int64 [1]), and in fp16
  /// "scaler.scale" (float32 [1]) and "scaler.growth" (int32 [1]). On another number of ranks the ranks' totals may be
  /// added up and given to one of them, zeros to the others.
  std::vector<NamedTensor> state() const;
  /// Throws CheckpointError, changing nothing, where a name is missing or unknown or a shape or type differs.
  void load_state(std::span<const NamedTensor> state);

 private:
  struct Pending;
  struct Finding;

  void run_step(const Batch& batch, const LearningRate& rate, const Scored& scored = {});
  /// The losses of the examples `range` of a batch, times their weights, summed; of mixed examples, both labels' by
  /// their parts. Notes them in the totals of the step.
  at::Tensor loss_of(const at::Tensor& logits, const Batch& batch, const Range& range);
  at::Tensor logits_of(const at::Tensor& images, const at::Tensor& noise, Precision precision);
  /// What the network's dropout and stochastic depth multiply with in step `step` for the examples `ids`, float32
  /// [ids, noise_width()] on the device; undefined for a network without them.
  at::Tensor noise_of(std::span<const std::int64_t> ids, std::int64_t step);
  at::Tensor flat_buffers() const;
  void set_buffers(const at::Tensor& values);
  void update(const LearningRate& rate, const at::Tensor& saved_buffers);
  void note_outcome(const Batch& batch, const std::string& where);
  void look_at_oldest();
  void look_at(bool skipped, float scale, const Batch& batch, const std::string& where);
  [[noreturn]] void stop(const Batch& batch, const std::string& where);
  Finding find_first_bad(const Batch& batch);

  const TrainingConfig& config_;
  Communicator& communicator_;
  PhaseTimer& timer_;
  at::Device device_;
  Precision precision_;
  std::shared_ptr<Classifier> network_;
  std::unique_ptr<Loss> loss_;
  std::vector<NamedTensor> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<DataParallel> data_parallel_;
  std::unique_ptr<StepGraph> graph_;  // null: every step is launched anew
  std::vector<at::Tensor> buffers_;   // the floating-point ones
  std::uint64_t seed_;
  // Taken so far and looked at so far, skipped ones included: what the noise of a step goes by.
  std::int64_t steps_ = 0, looked_at_ = 0;
  at::Tensor noise_;       // of the step that is taken
  at::Tensor noise_room_;  // on a GPU: always in the same place, which a recorded step reads

  LossScaler scaler_;
  // On the device, so that no step waits for it. float64 [3], of this rank: summed loss, right predictions, examples;
  // since the last take_totals(), and of the last step alone.
  at::Tensor totals_, last_;
  bool keeps_losses_ = false;
  at::Tensor example_losses_;

  bool watches_predictions_ = false;
  std::vector<at::Tensor> right_;  // of the last step, one for each of its passes

  std::deque<std::unique_ptr<Pending>> pending_;  // steps whose outcome was not looked at
  std::int64_t skipped_ = 0, skipped_in_a_row_ = 0;
};

}  // namespace sage
