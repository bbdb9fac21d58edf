// The network that scores in the place of the one in training: trained on all candidates when it is first needed.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "core/stopwatch.h"
#include "training/epoch.h"
#include "training/learner_state.h"

namespace sage {

class Proxy {
 public:
  /// All must outlive this object; `interruptions` may be null.
  Proxy(const Experiment& experiment, Job& job, Interruptions* interruptions)
      : experiment_(experiment), job_(job), interruptions_(interruptions) {}

  /// ALL ranks. The trained network: makes the steps of selection.proxy.steps that are left. `save` as in EpochWork.
  /// Throws RunStopped.
  Classifier& network(const std::function<void()>& save);

  /// ALL ranks. Where it stands, into `state`; a trained network only if it `is_needed` later.
  void add_to(TrainingState& state, HostCopies& copies, bool is_needed);
  /// Goes on from there when the network is asked for. A trained network that was not kept is trained again, to the
  /// same weights.
  void restore(TrainingState& state);

  /// Examples that its training back-propagated so far, over all ranks.
  std::int64_t examples() const { return position_.examples; }
  /// That its training took so far.
  double seconds() const { return seconds_ + (clock_ ? clock_->seconds() : 0.0); }

 private:
  const std::string& model_name() const;
  void train(const std::function<void()>& save);

  const Experiment& experiment_;
  Job& job_;
  Interruptions* interruptions_;
  PhaseTimer timer_;  // its own: the phases of training stay those of training
  std::shared_ptr<Classifier> network_;
  std::unique_ptr<Learner> learner_;      // while it trains
  std::optional<LearnerState> restored_;  // what network() has to go on with
  TrainingPosition position_;
  double seconds_ = 0.0;
  std::optional<Stopwatch> clock_;  // while it trains
};

}  // namespace sage
