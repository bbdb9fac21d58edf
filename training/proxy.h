// The network that scores in the place of the one in training: trained on all candidates when it is first needed.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "core/stopwatch.h"
#include "training/epoch.h"
#include "training/learner_state.h"

namespace sage {

/// What the training of proxies took.
struct ProxyEffort {
  std::int64_t examples = 0;
  double seconds = 0.0;
};

class Proxy {
 public:
  /// All must outlive this object; `interruptions` may be null.
  /// `history`: where the predictions of its training are noted; may be null.
  Proxy(const Experiment& experiment, Job& job, Interruptions* interruptions, ForgettingHistory* history = nullptr)
      : experiment_(experiment), job_(job), interruptions_(interruptions), history_(history) {}

  /// ALL ranks. The trained network: makes the steps of selection.proxy.steps that are left. `save` as in EpochWork.
  /// Throws RunStopped. `number`: which of several that differ in their seeds; one is kept at a time, and they are
  /// asked for in ascending order.
  Classifier& network(const std::function<void()>& save, std::int64_t number = 0);

  /// ALL ranks. Where it stands, into `state`; a trained network only if it `is_needed` later.
  void add_to(TrainingState& state, HostCopies& copies, bool is_needed);
  /// Goes on from there when the network is asked for. A trained network that was not kept is trained again, to the
  /// same weights. `number`: which one it is; `earlier`: what those before it took.
  void restore(TrainingState& state, std::int64_t number, const ProxyEffort& earlier);

  /// Examples that the training of all so far back-propagated, over all ranks.
  std::int64_t examples() const { return earlier_.examples + position_.examples; }
  /// That their training took so far.
  double seconds() const { return earlier_.seconds + own_seconds(); }
  /// Of those before the one that is there.
  const ProxyEffort& earlier() const { return earlier_; }

 private:
  const std::string& model_name() const;
  std::uint64_t seed() const;
  void begin(std::int64_t number);
  double own_seconds() const { return seconds_ + (clock_ ? clock_->seconds() : 0.0); }
  void train(const std::function<void()>& save);

  const Experiment& experiment_;
  Job& job_;
  Interruptions* interruptions_;
  ForgettingHistory* history_;
  std::int64_t number_ = 0;
  ProxyEffort earlier_;  // of those before
  PhaseTimer timer_;     // its own: the phases of training stay those of training
  std::shared_ptr<Classifier> network_;
  std::unique_ptr<Learner> learner_;      // while it trains
  std::optional<LearnerState> restored_;  // what network() has to go on with
  TrainingPosition position_;
  double seconds_ = 0.0;
  std::optional<Stopwatch> clock_;  // while it trains
};

}  // namespace sage
