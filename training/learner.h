// A network with its optimizer and gradient reduction: what makes one training step.
#pragma once
#include <memory>
#include <string>

#include "data/loader.h"
#include "distributed/communicator.h"
#include "distributed/data_parallel.h"
#include "training/experiment.h"
#include "training/optimizer.h"
#include "training/resources.h"

namespace sage {

/// Sums over the steps since the last reset, kept on the device: read once an epoch.
struct RunningTotals {
  at::Tensor loss_and_correct;  ///< float64 [2]: summed loss, number of right predictions, of this rank
  std::int64_t examples = 0;    ///< of all ranks
};

/// Mean loss and accuracy over all ranks.
struct EpochTotals {
  double loss = 0.0, accuracy = 0.0;
  std::int64_t examples = 0;
};

class Learner {
 public:
  /// ALL ranks. Starts from the same weights everywhere.
  Learner(const Experiment& experiment, std::shared_ptr<Classifier> network, Communicator& communicator,
          PhaseTimer& timer);

  /// One optimizer step on the mean loss of the global batch. ALL ranks, also one whose part is empty. A step whose
  /// gradients are not finite on any rank is so on all: it throws TrainingError naming `where`, step and ids, or is
  /// skipped (training.non_finite). Returns whether the step was taken.
  bool step(const Batch& batch, double learning_rate, const std::string& where);

  /// ALL ranks, before the network is evaluated, asked for gradients or saved: the same running statistics everywhere.
  void settle() { data_parallel_->broadcast_buffers(); }

  Classifier& network() { return *network_; }
  Optimizer& optimizer() { return *optimizer_; }
  std::int64_t skipped_steps() const { return skipped_steps_; }
  /// Mean loss of this rank's part of the last step; waits for the device. NaN where the part was empty.
  double last_loss() const;

  /// ALL ranks. Totals since the last call.
  EpochTotals take_totals();

 private:
  bool gradients_are_finite() const;
  [[noreturn]] void stop(const Batch& batch, const at::Tensor& losses, const std::string& where);

  const TrainingConfig& config_;
  Communicator& communicator_;
  PhaseTimer& timer_;
  std::shared_ptr<Classifier> network_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<DataParallel> data_parallel_;
  RunningTotals totals_;
  at::Tensor last_loss_sum_;
  std::int64_t last_count_ = 0, skipped_steps_ = 0;
};

}  // namespace sage
