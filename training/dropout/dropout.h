// Progressive data dropout in training: every batch is scored, and a part of it is trained on (dropout/policies.h says
// which). P ranks do what one rank does with the same global batch: budgets, quotas and draws are those of the global
// batch, which every rank knows whole (32 bytes for each of its examples).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/named_tensor.h"
#include "data/loader.h"
#include "distributed/communicator.h"
#include "training/dropout/difficulty.h"
#include "training/dropout/options.h"
#include "training/dropout/policies.h"
#include "training/dropout/record.h"
#include "training/experiment.h"
#include "training/learner.h"
#include "training/resources.h"

namespace sage {

/// Where a batch stands.
struct BatchPlace {
  std::int64_t epoch = 0;  ///< from 0
  std::int64_t batch = 0;  ///< within the epoch
  bool is_last = false;    ///< of the epoch
};

/// Memory beside the network's: 32 bytes for each example of the global batch; with `infobatch` 12 bytes for each
/// example of the train split, on every rank.
class ProgressiveDropout {
 public:
  /// `epochs` of the run. All must outlive this object. Throws as check_dropout does.
  ProgressiveDropout(const Experiment& experiment, Communicator& communicator, PhaseTimer& timer, std::int64_t epochs);

  /// Whether epoch `epoch` trains on a part.
  bool drops_in(std::int64_t epoch) const { return epoch < revision_; }

  /// What an epoch over `ids` goes through: with `infobatch` those that it keeps, else all. Valid until the next call.
  /// To be called again for an epoch that goes on.
  std::span<const std::int64_t> begin_epoch(std::span<const std::int64_t> ids, std::int64_t epoch);

  /// ALL ranks, for each batch of `loader`: chooses, and trains on what is kept (or, with dropout.accumulate_kept, on
  /// what was kept so far where that fills a batch, or ends the epoch). Where nothing is kept on any rank, no step is
  /// made on any. Returns the number of examples that were back-propagated, over all ranks. Throws as Learner::step().
  std::int64_t step(Learner& learner, const Loader& loader, Batch batch, const BatchPlace& place, double learning_rate,
                    const std::string& where);

  /// What the epoch came to; moves difficulties and scores on. No collective: all ranks know the same.
  DropoutRecord end_epoch(std::int64_t epoch);

  /// The ids that the last batch kept, over all ranks, in the order of the global batch.
  const std::vector<std::int64_t>& kept_ids() const { return kept_ids_; }

  /// The same on all ranks, whatever their number: "counts" (int64 [4]), "classes" (int64 [3, C]), "pool.ids" (int64),
  /// "pool.weights" (float32; empty: ones), "difficulty" (apd; float64 [C]), "scores" and "next_scores" (infobatch;
  /// float32, one for each example of the train split).
  std::vector<NamedTensor> state() const;
  /// Throws CheckpointError, changing nothing, where a name is missing or unknown or a shape or type differs.
  void load_state(std::span<const NamedTensor> state);

 private:
  /// What all ranks know of a batch.
  struct Gathered {
    ScoredBatch batch;
    std::vector<float> weights;  // of weighted subsets; empty: ones
    bool is_finite = true;
  };
  Gathered gather(const Batch& batch, const at::Tensor& logits);
  KeptMask choose(const ScoredBatch& batch, const BatchPlace& place) const;
  void note(const ScoredBatch& batch, const KeptMask& mask);
  /// The part of `batch` that this rank trains on. `kept`: positions in the global batch, ascending.
  Batch own_part(const Batch& batch, const Loader& loader, const Gathered& all,
                 std::span<const std::int64_t> kept) const;
  /// Of any examples, in place of what a loader gives.
  Batch batch_of(const Loader& loader, at::ScalarType type, std::span<const std::int64_t> ids,
                 std::span<const float> weights) const;
  /// `to_the_end`: waits for the device too, so that the whole step is charged to training.
  std::int64_t train(Learner& learner, const Batch& batch, double learning_rate, const std::string& where,
                     const Scored& scored = {}, bool to_the_end = false);
  std::int64_t train_from_pool(Learner& learner, const Loader& loader, bool is_last, double learning_rate,
                               const std::string& where);
  std::int64_t step_of_pruned(Learner& learner, Batch batch, double learning_rate, const std::string& where);
  std::vector<std::int64_t> labels_of(std::span<const std::int64_t> ids) const;

  const Experiment& experiment_;
  const DropoutConfig& config_;
  Communicator& communicator_;
  PhaseTimer& timer_;
  DropoutMode mode_;
  HardRule rule_;
  Scoring scoring_;
  std::int64_t revision_, class_count_;

  // Of the running epoch.
  std::int64_t offered_ = 0, kept_ = 0, updates_ = 0, empty_batches_ = 0;
  std::vector<std::int64_t> offered_of_class_, hard_of_class_, kept_of_class_;
  // What is kept and was not trained on, of all ranks.
  std::vector<std::int64_t> pool_ids_;
  std::vector<float> pool_weights_;

  std::optional<ClassDifficulty> difficulty_;  // apd
  // infobatch: the last losses by id, as the epoch began and as they are now; what the epoch keeps, and weights by id.
  std::vector<float> scores_, next_scores_;
  PrunedEpoch pruned_;
  std::vector<float> weight_of_id_;

  std::vector<std::int64_t> kept_ids_;
};

}  // namespace sage
