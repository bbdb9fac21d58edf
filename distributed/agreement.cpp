#include "distributed/agreement.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "core/error.h"
#include "distributed/signals.h"

namespace sage {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto patience_at_the_end = std::chrono::milliseconds(100);
constexpr const char* description = "agreement (on signals and checkpoints)";

}  // namespace

struct Agreement::Channel {
  explicit Channel(Runtime& of_process) : runtime(of_process) {}

  StopSignalWatch watch;
  Runtime& runtime;
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  std::array<std::int64_t, 2> votes{};
  bool under_way = false;
  std::int64_t watched = 0;  ///< channel of the watchdog
  std::int64_t number = 0;   ///< of the agreement there
};

Agreement::Agreement(Runtime& runtime) : channel_(std::make_unique<Channel>(runtime)) {
  if (runtime.size() == 1) return;
  channel_->watched = runtime.watchdog()->open_channel();
  check_mpi(MPI_Comm_dup(runtime.world(), &channel_->comm), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(channel_->comm, MPI_ERRORS_RETURN);
}

Agreement::~Agreement() {
  int ended = 0;
  MPI_Finalized(&ended);
  if (channel_->comm == MPI_COMM_NULL || ended != 0) return;
  // After an error in the middle of a step: the others have started it as well, as a rule, so that it comes to its end.
  const auto end = Clock::now() + patience_at_the_end;
  while (channel_->request != MPI_REQUEST_NULL && Clock::now() < end) {
    int done = 0;
    if (MPI_Test(&channel_->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (channel_->request == MPI_REQUEST_NULL) {
    MPI_Comm_free(&channel_->comm);
    return;
  }
  // MPI may still write into the votes: they are never freed, and MPI is not ended in order.
  channel_->runtime.abandoned()->store(true);
  (void)channel_.release();
}

void Agreement::start(const Votes& mine) {
  require(!channel_->under_way, "an agreement was started before the last one ended");
  channel_->under_way = true;
  channel_->votes = {mine.stop_signal, mine.save};
  if (channel_->comm == MPI_COMM_NULL) return;
  channel_->number = channel_->runtime.watchdog()->submitted(channel_->watched, description);
  check_mpi(MPI_Iallreduce(MPI_IN_PLACE, channel_->votes.data(), static_cast<int>(channel_->votes.size()), MPI_INT64_T,
                           MPI_MAX, channel_->comm, &channel_->request),
            "MPI_Iallreduce");
}

Votes Agreement::finish() {
  require(channel_->under_way, "an agreement was ended that had not been started");
  const auto deadline = channel_->runtime.deadline();
  Watchdog& watchdog = *channel_->runtime.watchdog();
  const auto start = Clock::now();
  for (int polls = 0; channel_->request != MPI_REQUEST_NULL; ++polls) {
    int done = 0;
    check_mpi(MPI_Test(&channel_->request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done != 0) {
      watchdog.done(channel_->watched);
    } else if (polls == 0) {
      watchdog.waits(channel_->watched, channel_->number, description, deadline);
    } else if (Clock::now() - start > deadline) {
      throw CommunicationError(watchdog.missed_deadline(channel_->watched, deadline));
    } else if (polls < 100) {
      std::this_thread::yield();
    } else {  // leave the core to those who compute
      std::this_thread::sleep_for(std::chrono::microseconds(std::min(polls, 200)));
    }
  }
  channel_->under_way = false;
  return {channel_->votes[0], channel_->votes[1]};
}

Votes Agreement::agree(const Votes& mine) {
  start(mine);
  return finish();
}

}  // namespace sage
