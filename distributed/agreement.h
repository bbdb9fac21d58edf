// What all ranks must agree on at every step without waiting for each other in the middle of it: that a signal asked
// for a stop, that a checkpoint is due. A few numbers over MPI in host memory, started at the beginning of a step and
// looked at at its end, so that the round trip hides behind the step's own work.
#pragma once
#include <array>
#include <cstdint>
#include <memory>

#include "distributed/runtime.h"

namespace sage {

/// Signals that ask for an orderly end, as a flag. SIGTERM and SIGUSR1: save a checkpoint and leave with
/// ExitStatus::stopped. SIGINT keeps its meaning (end at once).
void install_stop_signals();
/// The first of those signals that arrived in this process, or 0.
int stop_signal() noexcept;

/// What one rank has to say, and what comes of it for all: the maximum of each.
struct Votes {
  std::int64_t stop_signal = 0;  ///< stop_signal(), or 0
  std::int64_t save = 0;         ///< 1: a checkpoint is due (rank 0 looks at the clock)
};

class Agreement {
 public:
  /// ALL ranks. A channel of its own. In a world of one: the identity.
  explicit Agreement(Runtime& runtime);
  ~Agreement();
  /// ALL ranks, in the same order; returns at once. One may be under way at a time.
  void start(const Votes& mine);
  /// ALL ranks: waits for what was started. Throws CommunicationError at the deadline.
  Votes finish();
  /// start() and finish().
  Votes agree(const Votes& mine);

 private:
  struct Channel;
  std::unique_ptr<Channel> channel_;
};

}  // namespace sage
