// Choosing a subset within a run: which network scores, on what, and the record that is kept of it.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "selection/selection.h"
#include "training/experiment.h"
#include "training/forgetting.h"
#include "training/interruptions.h"
#include "training/job.h"
#include "training/proxy.h"
#include "training/run_folder.h"
#include "training/selection_schedule.h"

namespace sage {

/// A subset with its record and the scores of all candidates.
struct SubsetChoice {
  SubsetRecord record;
  ScoreTable scores;  ///< no scores where the method gives none (random)
  const ScoreTable* table() const { return scores.scores.empty() ? nullptr : &scores; }
};

class SubsetSelection {
 public:
  /// All must outlive this object. `interruptions`: null where nothing stops a choice.
  SubsetSelection(const Experiment& experiment, Job& job, Interruptions* interruptions = nullptr);

  /// ALL ranks. Chooses among the candidates with the network in training (`current`) or, with selection.scorer proxy,
  /// with a network that is trained on all candidates for proxy.steps when it is first needed. `round` counts from 1,
  /// `completed_epochs` names the record, `previous` (ascending; empty for none) is compared with. `save` (ALL ranks)
  /// writes a checkpoint between two steps of the proxy. Throws RunStopped; what was begun then goes on in the next
  /// call, also in another process, after add_to() and restore().
  SubsetChoice choose(Classifier& current, std::int64_t round, std::int64_t completed_epochs,
                      std::span<const std::int64_t> previous, const std::function<void()>& save = {});

  /// ALL ranks. What is begun, what is remembered of training, and the proxy where a choice to come may need it, into
  /// `state`.
  void add_to(TrainingState& state, HostCopies& copies);
  void restore(TrainingState& state);

  /// Where the training of the run has to note its predictions; null: nowhere.
  ForgettingHistory* history_of_training() {
    return by_proxy() || !selects_at_all(experiment_.config.selection) ? nullptr : history();
  }

  /// Examples that the proxy's training back-propagated so far, over all ranks.
  std::int64_t examples_seen() const { return proxy_.examples(); }

 private:
  /// Scores of el2n or grand, summed over networks that were trained for the purpose.
  struct Difficulty {
    std::int64_t networks = 0;
    std::vector<double> sums;  // of all candidates
  };

  bool by_proxy() const;
  ForgettingHistory* history() { return history_ ? &*history_ : nullptr; }
  /// ALL ranks: trains what networks are left of selection.early.models and sums up their scores.
  void measure_difficulty(std::int64_t round, std::span<const std::int64_t> labels, const std::function<void()>& save);
  SelectionResult select(Classifier& scorer, std::int64_t round, std::span<const std::int64_t> labels);
  /// ALL ranks: calls `work` with the request that a network `scorer` answers. Throws RunStopped.
  void with_request(Classifier& scorer, std::int64_t round, std::span<const std::int64_t> labels,
                    const std::function<void(SelectionRequest&)>& work);

  const Experiment& experiment_;
  Job& job_;
  Interruptions* interruptions_;
  std::optional<ForgettingHistory> history_;  // where the method looks at it
  Proxy proxy_;
  Difficulty difficulty_;
  std::optional<SelectionState> begun_;  // a selection that was stopped half-way
  double seconds_ = 0.0;                 // spent in a choice that is not made, by earlier calls
  std::optional<Stopwatch> clock_;       // while one is made
};

}  // namespace sage
