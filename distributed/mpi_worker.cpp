#include "distributed/mpi_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/trace.h"
#include "core/whereabouts.h"
#include "distributed/signals.h"
#include "distributed/watchdog.h"

namespace sage {
namespace {

using Clock = std::chrono::steady_clock;

/// Between two looks at transfers that have waited so long: leaves the core to those who compute, and finds the end
/// late by at most a sixteenth of the wait (and what the system adds to a sleep). Where the caller waits for a transfer
/// (`is_awaited`) nobody computes, and MPI moves large messages only while it is looked at: then it keeps looking for
/// as long as a chunk may take.
void rest(Clock::duration waited, bool is_awaited) {
  using std::chrono::microseconds;
  if (waited < microseconds(is_awaited ? 20'000 : 50)) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::min<Clock::duration>(waited / 16, microseconds(1000)));
  }
}

}  // namespace

MpiWorker::MpiWorker(const MpiBackendOptions& options, std::int64_t channel)
    : deadline_(options.deadline),
      job_abandoned_(options.abandoned),
      watchdog_(options.watchdog),
      channel_(channel),
      thread_([this] { run(); }) {}

MpiWorker::~MpiWorker() { stop(true); }

void MpiWorker::submit(Transfer transfer) {
  {
    const std::lock_guard lock(mutex_);
    require(stop_ == Stop::no, "a collective was started on a communicator that is being destroyed");
    if (!transfer.point_to_point) transfer.number = watchdog_->submitted(channel_, transfer.description);
    waiting_.push_back(std::move(transfer));
  }
  wake_.notify_one();
}

bool MpiWorker::stop(bool at_once) {
  {
    const std::lock_guard lock(mutex_);
    stop_ = at_once ? Stop::at_once : Stop::when_done;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  return !abandoned_;
}

void MpiWorker::run() {
  block_signals();
  std::deque<Transfer> collectives;
  std::list<Transfer> running;
  Clock::time_point last_progress = Clock::now();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (running.empty() && collectives.empty())
        wake_.wait(lock, [&] { return !waiting_.empty() || stop_ != Stop::no; });
      for (; !waiting_.empty(); waiting_.pop_front()) {
        Transfer& transfer = waiting_.front();
        if (transfer.point_to_point) {
          start(transfer);
          running.push_back(std::move(transfer));
        } else {
          collectives.push_back(std::move(transfer));
        }
      }
      if (stop_ == Stop::when_done && running.empty() && collectives.empty()) return;
      if (stop_ == Stop::at_once) break;
    }
    const bool collective_runs =
        std::any_of(running.begin(), running.end(), [](const Transfer& transfer) { return !transfer.point_to_point; });
    if (!collective_runs && !collectives.empty()) {
      start(collectives.front());
      running.push_back(std::move(collectives.front()));
      collectives.pop_front();
    }
    bool progressed = false;
    for (auto transfer = running.begin(); transfer != running.end();) {
      const Progress progress = advance(*transfer);
      progressed |= progress != Progress::none;
      transfer = progress == Progress::done ? running.erase(transfer) : std::next(transfer);
    }
    const auto now = Clock::now();
    if (progressed) last_progress = now;
    const bool is_awaited =
        std::any_of(running.begin(), running.end(), [](const Transfer& transfer) { return transfer.is_awaited; });
    rest(now - last_progress, is_awaited);
  }
  const auto error = std::make_exception_ptr(
      CommunicationError("the communicator was destroyed because of another error before this transfer ended"));
  for (auto& transfer : running) fail(transfer, error);
  for (auto& transfer : collectives) fail(transfer, error);
}

void MpiWorker::start(Transfer& transfer) {
  const std::chrono::milliseconds deadline = deadline_;
  transfer.begin = Clock::now();
  transfer.deadline = transfer.begin + deadline;
  if (!transfer.point_to_point) watchdog_->waits(channel_, transfer.number, transfer.description, deadline);
}

/// Throws CommunicationError if they never will be.
bool MpiWorker::pieces_are_done(Transfer& transfer) {
  auto& requests = transfer.requests;
  if (requests.empty()) return true;
  int all = 0;
  std::vector<MPI_Status> statuses(requests.size());
  const int code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &all, statuses.data());
  if (code == MPI_ERR_IN_STATUS) {
    const std::string what = fmt::format("{}: {} #{}: MPI", whereabouts::text(), transfer.description, transfer.number);
    for (const MPI_Status& status : statuses) {
      if (status.MPI_ERROR != MPI_ERR_PENDING) check_mpi(status.MPI_ERROR, what.c_str());
    }
  }
  check_mpi(code, "MPI_Testall");
  if (all != 0) return true;
  if (!transfer.point_to_point) {
    if (const std::string verdict = watchdog_->verdict(channel_); !verdict.empty()) throw CommunicationError(verdict);
  }
  if (Clock::now() < transfer.deadline) return false;
  const std::chrono::milliseconds deadline = deadline_;
  if (!transfer.point_to_point) throw CommunicationError(watchdog_->missed_deadline(channel_, deadline));
  const std::string place = whereabouts::text();
  throw CommunicationError(
      fmt::format("{}{}{} was not completed within {:g} s: the other rank hangs, is gone, or is far behind", place,
                  place.empty() ? "" : ": ", transfer.description, std::chrono::duration<double>(deadline).count()));
}

MpiWorker::Progress MpiWorker::advance(Transfer& transfer) {
  try {
    if (failure_) std::rethrow_exception(failure_);
    if (!pieces_are_done(transfer)) return Progress::none;
    transfer.requests.clear();
    if (transfer.post(transfer.requests)) {
      transfer.deadline = Clock::now() + deadline_.load();  // for each piece: a large transfer may take its time
      return Progress::some;
    }
    if (transfer.finish) transfer.finish();
  } catch (...) {
    fail(transfer, std::current_exception());
    return Progress::done;
  }
  complete(transfer, nullptr);
  return Progress::done;
}

/// What hangs on the end of a transfer may throw as well; that must not end the thread, and with it the program.
void MpiWorker::complete(Transfer& transfer, const std::exception_ptr& error) {
  if (!transfer.point_to_point) watchdog_->done(channel_);
  try {
    if (trace::keeps_steps()) {
      trace::name_thread(fmt::format("communication, channel {}", channel_));
      trace::add(transfer.description, transfer.begin, Clock::now());
    }
    transfer.complete(error);
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
  }
}

/// After one failure nobody knows what the peers wait for, so everything later fails in the same way.
void MpiWorker::fail(Transfer& transfer, const std::exception_ptr& error) {
  if (!failure_) failure_ = error;
  Transfer* kept = &transfer;
  if (!transfer.requests.empty()) {  // MPI may still write into its memory, which is never freed
    abandoned_ = true;
    if (job_abandoned_) job_abandoned_->store(true);
    kept = new Transfer(std::move(transfer));
  }
  complete(*kept, error);
}

}  // namespace sage
