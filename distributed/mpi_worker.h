// The thread of one communicator that talks to MPI: starts transfers, looks whether they have ended, keeps deadlines.
#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/mpi_api.h"
#include "distributed/mpi_backend.h"

namespace sage {

/// One collective, send or receive on its way.
struct Transfer {
  /// The same on all ranks where all must agree on it: "all-reduce (float32, 4000 bytes)".
  std::string description;
  /// Starts the next piece (appending its requests); returns false when none is left.
  std::function<bool(std::vector<MPI_Request>&)> post;
  std::function<void()> finish;  ///< after the last piece; may be empty
  /// Called once, at the end, with null or with what went wrong.
  std::function<void(const std::exception_ptr&)> complete;
  std::vector<at::Tensor> keep_alive;
  bool point_to_point = false;
  bool is_awaited = false;  ///< its caller waits for it and computes nothing meanwhile

  // Of the worker:
  std::vector<MPI_Request> requests;
  std::int64_t number = 0;  ///< of a collective within its communicator
  std::chrono::steady_clock::time_point deadline;
  std::chrono::steady_clock::time_point begin;  ///< for the trace
};

class MpiWorker {
 public:
  /// `channel`: where the watchdog counts the collectives.
  MpiWorker(const MpiBackendOptions& options, std::int64_t channel);
  ~MpiWorker();

  /// Collectives run one after another in the order of submission, which is the same on all ranks; sends and receives
  /// run beside them, so that two ranks that both send first do not wait for each other.
  void submit(Transfer transfer);
  void set_deadline(std::chrono::milliseconds deadline) { deadline_ = deadline; }
  /// Ends the thread: after what was submitted, or `at_once`. Returns false if transfers are still under way in MPI.
  bool stop(bool at_once);

 private:
  enum class Stop { no, when_done, at_once };
  enum class Progress { none, some, done };

  void run();
  void start(Transfer& transfer);
  Progress advance(Transfer& transfer);
  bool pieces_are_done(Transfer& transfer);
  void complete(Transfer& transfer, const std::exception_ptr& error);
  void fail(Transfer& transfer, const std::exception_ptr& error);

  std::atomic<std::chrono::milliseconds> deadline_;
  const std::shared_ptr<std::atomic<bool>> job_abandoned_;
  const std::shared_ptr<Watchdog> watchdog_;
  const std::int64_t channel_;  ///< of the watchdog
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Transfer> waiting_;
  Stop stop_ = Stop::no;
  // Of the thread alone, and of stop() after it has ended:
  std::exception_ptr failure_;
  bool abandoned_ = false;
  std::thread thread_;
};

}  // namespace sage
