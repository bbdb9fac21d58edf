// Choosing a subset within a run: which network scores, on what, and the record that is kept of it.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "training/experiment.h"
#include "training/job.h"
#include "training/run_folder.h"

namespace sage {

/// A subset with its record and the scores of all candidates.
struct SubsetChoice {
  SubsetRecord record;
  ScoreTable scores;  ///< no scores where the method gives none (random)
  const ScoreTable* table() const { return scores.scores.empty() ? nullptr : &scores; }
};

class SubsetSelection {
 public:
  /// Both must outlive this object.
  SubsetSelection(const Experiment& experiment, Job& job) : experiment_(experiment), job_(job) {}

  /// ALL ranks. Chooses among the candidates with the network in training (`current`) or, with selection.scorer proxy,
  /// with a network that is trained on all candidates for proxy.steps when it is first needed. `round` counts from 1,
  /// `completed_epochs` names the record, `previous` (ascending; empty for none) is compared with.
  SubsetChoice choose(Classifier& current, std::int64_t round, std::int64_t completed_epochs,
                      std::span<const std::int64_t> previous);

  /// Examples that the proxy's training back-propagated so far, over all ranks.
  std::int64_t examples_seen() const { return examples_seen_; }
  /// On resume. A proxy that is needed again is trained again, to the same weights; its examples count once.
  void restore_examples_seen(std::int64_t examples) { examples_seen_ = examples; }

 private:
  void train_proxy();

  const Experiment& experiment_;
  Job& job_;
  std::shared_ptr<Classifier> proxy_;
  std::int64_t examples_seen_ = 0;
};

}  // namespace sage
