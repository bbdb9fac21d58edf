// What may come between two steps: a stop that a signal asked for, a checkpoint that is due.
#pragma once
#include <cstdint>
#include <exception>
#include <functional>

#include "core/config.h"
#include "core/stopwatch.h"
#include "distributed/agreement.h"

namespace sage {

/// Thrown on ALL ranks at the same place, to end a run in order.
class RunStopped : public std::exception {
 public:
  explicit RunStopped(int signal) : signal_(signal) {}
  int signal() const noexcept { return signal_; }
  const char* what() const noexcept override { return "a signal asked the run to stop"; }

 private:
  int signal_;
};

class Interruptions {
 public:
  /// ALL ranks. `stop_signal` says what this process was told: the number of a signal, or 0.
  Interruptions(Runtime& runtime, const Config& config, std::function<int()> stop_signal);

  /// What all ranks do at the end of a step.
  struct Due {
    int stop_signal = 0;  ///< not 0: save, and leave
    bool save = false;
  };
  /// ALL ranks, around each training step. Every distributed.agreement_interval steps the ranks agree meanwhile.
  void begin_step();
  Due end_step();
  /// ALL ranks, between two parts of the work: the signal that asks for a stop, or 0.
  int agree_to_stop();
  /// A checkpoint was due and was not made: the same on all ranks.
  bool is_due() const { return is_due_; }
  /// ALL ranks: a checkpoint was made.
  void saved();

 private:
  Votes votes() const;

  const Config& config_;
  bool is_lead_;
  std::function<int()> stop_signal_;
  Agreement agreement_;
  bool asked_ = false, is_due_ = false;
  std::int64_t steps_ = 0, steps_since_save_ = 0;
  Stopwatch since_save_;
};

}  // namespace sage
