// The process among its peers: MPI started and ended by one owner, who we are, which device and how many threads are
// ours. Works alone (a world of one), under mpirun and under srun.
#pragma once
#include <c10/core/Device.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "distributed/device_choice.h"
#include "distributed/mpi_api.h"
#include "distributed/watchdog.h"

namespace sage {

/// What `sage --version` and the run folder report. Empty where a part is not there.
struct LibraryVersions {
  std::string mpi;           ///< the MPI library's own line
  std::string cuda_runtime;  ///< for example "13.0"
  std::string cuda_driver;
  std::string nccl;  ///< for example "2.28.9"
};

/// Can be asked without a Runtime. Never throws: what cannot be found stays empty.
LibraryVersions library_versions();

class Runtime {
 public:
  /// Starts MPI. ALL ranks. One Runtime per process: a second one throws InternalError.
  Runtime();
  /// Ends MPI. ALL ranks: it waits for the others, so end a job with a failed rank through abort_job().
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Rank among the processes of this node, and their number.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }
  const std::string& host() const { return host_; }

  /// ALL ranks. Sets the compute threads and chooses this rank's device: one GPU per local rank. Throws
  /// EnvironmentError if CUDA is demanded and missing on any rank, or if there are more ranks on the node than GPUs and
  /// sharing is not allowed or not possible (NCCL before 2.30).
  at::Device configure(const DeviceConfig& config);

  /// Threads that operators use, as set by configure(): this rank's share of the cores it may run on, unless the
  /// configuration or OMP_NUM_THREADS names a number.
  int compute_threads() const { return compute_threads_; }

  /// How long a rank waits for the others in a collective before it ends the job.
  std::chrono::milliseconds deadline() const { return deadline_; }
  void set_deadline(std::chrono::milliseconds deadline) { deadline_ = deadline; }

  /// Ends all ranks at once, wherever they are; the job's exit status is `status`.
  [[noreturn]] void abort_job(int status) noexcept;

  /// The world. Parts that talk duplicate it, so that their messages never meet.
  MPI_Comm world() const { return MPI_COMM_WORLD; }
  /// For run_guarded alone: carries what each rank has to say at its end.
  MPI_Comm farewell() const { return farewell_; }
  /// Set by a communicator that was destroyed with transfers under way; MPI can then only be ended by abort_job().
  const std::shared_ptr<std::atomic<bool>>& abandoned() const { return abandoned_; }
  const std::shared_ptr<Watchdog>& watchdog() const { return watchdog_; }

 private:
  /// ALL ranks of the node: what each of them sees, `devices` of them here.
  std::vector<std::vector<DeviceUuid>> devices_of_node(int devices) const;
  /// ALL ranks: the lowest rank with a problem (not empty) speaks for all, so that one message is printed.
  void refuse_together(const std::string& problem) const;
  void set_threads(std::int64_t requested);
  int share_of_cores() const;

  int rank_ = 0, size_ = 1, local_rank_ = 0, local_size_ = 1, compute_threads_ = 1;
  std::string host_;
  std::chrono::milliseconds deadline_ = std::chrono::minutes(10);
  MPI_Comm node_ = MPI_COMM_NULL, farewell_ = MPI_COMM_NULL;
  std::shared_ptr<std::atomic<bool>> abandoned_ = std::make_shared<std::atomic<bool>>(false);
  std::shared_ptr<Watchdog> watchdog_;
};

}  // namespace sage
