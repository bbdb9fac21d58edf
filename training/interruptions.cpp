#include "training/interruptions.h"

namespace sage {

Interruptions::Interruptions(Runtime& runtime, const Config& config, std::function<int()> stop_signal)
    : config_(config), is_lead_(runtime.rank() == 0), stop_signal_(std::move(stop_signal)), agreement_(runtime) {}

Votes Interruptions::votes() const {
  // One clock decides for all.
  const double minutes = config_.output.save_minutes;
  const bool due = is_lead_ && minutes > 0 && since_save_.seconds() >= 60 * minutes;
  return {.stop_signal = stop_signal_(), .save = due ? 1 : 0};
}

void Interruptions::begin_step() {
  asked_ = steps_ % config_.distributed.agreement_interval == 0;
  if (asked_) agreement_.start(votes());
}

Interruptions::Due Interruptions::end_step() {
  ++steps_;
  ++steps_since_save_;
  Due due;
  due.save = config_.output.save_steps > 0 && steps_since_save_ >= config_.output.save_steps;
  if (asked_) {
    const Votes agreed = agreement_.finish();
    due.stop_signal = static_cast<int>(agreed.stop_signal);
    due.save |= agreed.save != 0;
  }
  is_due_ |= due.save;
  return due;
}

int Interruptions::agree_to_stop() { return static_cast<int>(agreement_.agree(votes()).stop_signal); }

void Interruptions::saved() {
  is_due_ = false;
  steps_since_save_ = 0;
  since_save_.restart();
}

}  // namespace sage
