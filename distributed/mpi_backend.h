// A c10d backend over MPI for CPU tensors. One worker thread talks to MPI, so that collectives run while the caller
// computes (c10d::Reducer overlaps the backward pass with them).
#pragma once
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "distributed/mpi_api.h"

namespace c10d {
class Backend;
}

namespace sage {

class Watchdog;

struct MpiBackendOptions {
  /// Transfers are cut into pieces of at most this many bytes: MPI counts in int, and small pieces stay in cache.
  std::int64_t chunk_bytes = std::int64_t{2} << 20;
  /// How long a collective may wait for the other ranks before it fails with CommunicationError.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
  /// Set when the backend is destroyed with transfers under way (may be null).
  std::shared_ptr<std::atomic<bool>> abandoned;
  /// Of all ranks of the communicator, and no other.
  std::shared_ptr<Watchdog> watchdog;
};

/// ALL ranks of `parent`, which is duplicated. The backend offers allreduce (SUM, AVG, MAX, MIN), broadcast, allgather,
/// _allgather_base, alltoall, alltoall_base, barrier, send and recv, on dense contiguous tensors of any dtype
/// (reductions: floating and integer dtypes). It must be destroyed before MPI ends.
c10::intrusive_ptr<c10d::Backend> make_mpi_backend(MPI_Comm parent, const MpiBackendOptions& options);

}  // namespace sage
