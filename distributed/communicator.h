// The one seam through which ranks talk. Every verb is collective: ALL ranks call it, in the same order, with tensors
// of the same shape unless said otherwise. A world of one rank is the identity, so callers never ask for the number of
// ranks. Tensors live on the communicator's device (CPU under MPI, CUDA under NCCL) and are contiguous.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace c10d {
class ProcessGroup;
}

namespace sage {

/// What went over the wire from this rank, in bytes of payload.
struct Traffic {
  std::int64_t bytes_sent = 0;
  std::int64_t calls = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual at::Device device() const = 0;

  /// In place: the sum over all ranks; the same bits on every rank.
  virtual void all_reduce_sum(at::Tensor tensor) = 0;
  /// In place: the elementwise maximum over all ranks.
  virtual void all_reduce_max(at::Tensor tensor) = 0;
  /// In place: what rank `root` holds.
  virtual void broadcast(at::Tensor tensor, int root) = 0;
  /// [n_r, ...] from every rank r, where only n_r may differ: their concatenation in rank order, on every rank.
  virtual at::Tensor all_gather_rows(const at::Tensor& rows) = 0;
  /// Point to point inside a collective: sends `send` to rank `partner` and receives into `receive` from it. Either may
  /// be undefined (nothing in that direction); partner -1 takes part with nothing. Pairs must agree on sizes.
  virtual void exchange(int partner, const at::Tensor& send, at::Tensor receive) = 0;
  /// One tensor (may be undefined) to and from every rank: to[r] is sent to rank r, from[r] is filled by rank r. Both
  /// have size() entries; sizes must agree pairwise; entries of the same dtype.
  virtual void exchange_all(std::span<const at::Tensor> to, std::span<at::Tensor> from) = 0;
  virtual void barrier() = 0;

  /// Traffic of `exchange`, `exchange_all` (data for other ranks only) since the last reset, and all other verbs
  /// counted as the size of their tensors.
  virtual Traffic traffic() const = 0;
  virtual void reset_traffic() = 0;

  /// For c10d::Reducer. Null in a world of one.
  virtual c10::intrusive_ptr<c10d::ProcessGroup> process_group() const = 0;

  /// The strings of all ranks, in rank order, on every rank. Built on the verbs above.
  std::vector<std::string> all_gather_strings(const std::string& text);

  /// Runs `action` on this rank; if it throws on any rank, every rank throws: the rank with the lowest number rethrows
  /// its own error, the others throw PeerFailed, which main() does not print. For set-up steps (reading files, checks)
  /// where all ranks are alive and one clear message is wanted.
  void all_or_none(const std::function<void()>& action);
};

/// Another rank has failed and prints the message; this one only ends with the same status.
class PeerFailed : public std::exception {
 public:
  explicit PeerFailed(int status) : status_(status) {}
  int status() const noexcept { return status_; }
  const char* what() const noexcept override { return "another rank failed"; }

 private:
  int status_;
};

/// A world of one rank on `device`.
std::unique_ptr<Communicator> make_single_communicator(at::Device device);

}  // namespace sage
