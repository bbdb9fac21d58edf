// What the ranks know of each other when a collective does not end: who has not come to it, who is in another one, who
// has left the job. Healthy collectives pay a few stores for it. Where one takes long, a thread of each process asks
// the others by small messages of their own; only a process that is stopped or gone does not answer.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "distributed/mpi_api.h"

namespace sage {

class Watchdog {
 public:
  using Clock = std::chrono::steady_clock;

  /// ALL ranks of `world`, which is duplicated. A world of one has nobody to ask and no thread.
  explicit Watchdog(MPI_Comm world);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  /// Answers and asks no more. Before MPI ends.
  void stop();

  /// ALL ranks, in the same order: a channel of collectives (of one communicator), by its number. The newest 16 are
  /// watched.
  std::int64_t open_channel();
  /// This rank takes part in one more collective of the channel; returns its number there, counted from 1.
  /// `description` must be the same on all ranks: "all-reduce (float32, 4000 bytes)".
  std::int64_t submitted(std::int64_t channel, std::string_view description);
  /// From now on this rank waits for the others in the collective of that number, up to `deadline`.
  void waits(std::int64_t channel, std::int64_t number, std::string_view description, Clock::duration deadline);
  /// It has ended.
  void done(std::int64_t channel);

  /// Why the collective that `channel` waits in can never end; empty as long as it may.
  std::string verdict(std::int64_t channel) const;
  /// The whole message for a missed deadline of that collective: where this rank stands, the collective, and which
  /// ranks are missing, where they stand.
  std::string missed_deadline(std::int64_t channel, Clock::duration deadline) const;

  /// This rank is about to abort the job: the others hear of it, say nothing more, and end at the signal that follows.
  void announce_abort();
  bool abort_is_announced() const;

  /// This rank has come to its end, good or bad, and takes part in no further collective.
  void leave();
  /// After leave(): which rank waits, for ever, in what, for this one; empty if none is known to.
  std::string waits_for_this_rank() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sage
