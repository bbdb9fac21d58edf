// CREST: the loss as a chain of quadratic functions, each trained on with coresets of mini-batches that were chosen for
// it (Yang, Kang and Mirzasoleiman, "Towards sustainable learning: coresets for data-efficient deep learning", ICML
// 2023). The loop of check, select, fit, train and drop; README.md says what is done where.
#pragma once
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "training/crest/coresets.h"
#include "training/crest/crest_plan.h"
#include "training/crest/crest_record.h"
#include "training/crest/example_outputs.h"
#include "training/crest/loss_watch.h"
#include "training/crest/quadratic_model.h"
#include "training/crest/random_sets.h"
#include "training/epoch.h"
#include "training/host_copies.h"

namespace sage {

/// Gives the batches of all short epochs but the first, which trains on all candidates in random order. What it holds
/// is the same on every rank. Memory beside training: three vectors of D parameters (and four more in a fit), the
/// network's answers for the examples of a selection (CrestPlan::most_forwarded x C), and 17 bytes an example.
class Crest : public BatchSource {
 public:
  /// All must outlive this object. `record`: called on rank 0 after each update. Throws ConfigError as plan_crest does.
  Crest(const Experiment& experiment, Job& job, Learner& learner, std::function<void(const CrestUpdate&)> record);

  /// ALL ranks. Checks, selects and fits where that is due, and gives this rank's part of a coreset chosen at random.
  /// Throws TrainingError on ALL ranks where losses or derivatives are not finite.
  Batch next(const TrainingPosition& position) override;
  /// Excludes what was learned, where that is due.
  void stepped(const TrainingPosition& position) override;

  /// ALL ranks, at the end of an epoch that took this process `seconds` without its evaluation. `evaluates`: also on
  /// dropped examples.
  CrestEpoch end_epoch(const TrainingPosition& position, double seconds, bool evaluates);

  /// Whole on rank 0; on the others without tensors.
  SelectionState state(HostCopies& copies) const;
  /// Goes on from there, bit for bit. Throws CheckpointError.
  void restore(const SelectionState& state);

  /// Selections so far.
  std::int64_t updates() const { return epoch_.updates; }
  /// What is trained on now, and may be chosen from.
  const std::vector<Coreset>& coresets() const { return coresets_; }
  const RemainingExamples& remaining() const { return remaining_; }

 private:
  bool is_check_due(std::int64_t step) const;
  /// ALL ranks. Whether the quadratic model no longer tells the loss; then `update` says why.
  bool is_model_off(CrestUpdate& update);
  /// ALL ranks. Its losses are observed.
  ExampleOutputs forward_for_loss(std::span<const std::int64_t> ids);
  void select(std::int64_t step, CrestUpdate& update);
  void fit(std::int64_t step, CrestUpdate& update);
  Derivatives measure_derivatives(std::int64_t step);
  Batch to_batch(const Coreset& coreset, std::int64_t step);
  at::Tensor weights_now() const;

  const Experiment& experiment_;
  const SelectionConfig& selection_;
  const SelectionConfig::Crest& config_;
  Job& job_;
  Learner& learner_;
  std::function<void(const CrestUpdate&)> record_;
  CrestPlan plan_;
  std::vector<at::Tensor> parameters_;
  std::uint64_t seed_;

  RemainingExamples remaining_;
  LossWatch watch_;
  QuadraticModel model_;
  std::vector<std::int64_t> check_set_;  // V_r, drawn at the selection; empty as released
  std::vector<Coreset> coresets_;        // empty before the first selection
  Adaptation adaptation_;
  double first_norm_ = 0.0;
  std::int64_t selected_at_ = -1;  // steps done then
  std::int64_t sets_drawn_ = 0;    // in the run
  CrestEpoch epoch_;               // so far
};

}  // namespace sage
