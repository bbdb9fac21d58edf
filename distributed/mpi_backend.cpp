#include "distributed/mpi_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/whereabouts.h"
#include "distributed/mpi_worker.h"
#include "distributed/watchdog.h"

namespace sage {
namespace {

using Requests = std::vector<MPI_Request>;

/// All pairwise transfers of one collective travel under one tag: MPI keeps their order within a pair of ranks.
constexpr int collective_tag = 0;

class MpiWork : public c10d::Work {
 public:
  MpiWork(int rank, c10d::OpType type, const char* name, std::vector<at::Tensor> result)
      : Work(rank, type),
        name_(name),
        result_(std::move(result)),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()))) {}

  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }
  std::vector<at::Tensor> result() override { return result_; }

  bool wait(std::chrono::milliseconds timeout) override {
    whereabouts::set_collective(name_);
    try {
      const bool done = Work::wait(timeout);
      whereabouts::set_collective(nullptr);
      return done;
    } catch (...) {
      whereabouts::set_collective(nullptr);
      throw;
    }
  }

  void complete(const std::exception_ptr& error) {
    // Whatever hangs on the future and throws: who waits for this work must go on.
    try {
      if (error) {
        future_->setError(error);
      } else {
        future_->markCompleted(c10::IValue(result_));
      }
    } catch (...) {
      finish(std::current_exception());
      throw;
    }
    finish(error);
  }

 private:
  const char* name_;
  std::vector<at::Tensor> result_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

struct Job : Transfer {
  c10::intrusive_ptr<MpiWork> work;
};

/// A stretch of memory that moves to or from one rank.
struct Piece {
  char* bytes;
  std::int64_t count;
  int peer;
};

MPI_Datatype mpi_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return MPI_FLOAT;
    case at::kDouble:
      return MPI_DOUBLE;
    case at::kInt:
      return MPI_INT32_T;
    case at::kLong:
      return MPI_INT64_T;
    case at::kByte:
      return MPI_UINT8_T;
    case at::kChar:
      return MPI_INT8_T;
    case at::kShort:
      return MPI_INT16_T;
    default:
      return MPI_DATATYPE_NULL;
  }
}

class MpiBackend : public c10d::Backend {
 public:
  MpiBackend(MPI_Comm comm, int rank, int size, const MpiBackendOptions& options, std::int64_t channel)
      : Backend(rank, size), comm_(comm), chunk_bytes_(options.chunk_bytes), worker_(options, channel) {
    require(chunk_bytes_ >= 1 && chunk_bytes_ <= (std::int64_t{1} << 30),
            "the chunk limit of MPI transfers must lie in 1 byte .. 1 GiB");
  }

  ~MpiBackend() override {
    // An error on this rank must not wait for peers who do not know of it.
    const bool in_order = worker_.stop(std::uncaught_exceptions() > 0);
    int ended = 0;
    MPI_Finalized(&ended);
    if (ended == 0 && in_order) MPI_Comm_free(&comm_);
  }

  const std::string getBackendName() const override { return "sage_mpi"; }
  void setSequenceNumberForGroup() override {}
  std::uint64_t getSequenceNumberForGroup() override { return 0; }
  void setTimeout(std::chrono::milliseconds timeout) override { worker_.set_deadline(timeout); }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& opts) override {
    at::Tensor tensor = single(tensors, "allreduce");
    MPI_Op op = MPI_SUM;
    bool average = false;
    switch (static_cast<c10d::ReduceOp::RedOpType>(opts.reduceOp)) {
      case c10d::ReduceOp::SUM:
        break;
      case c10d::ReduceOp::AVG:
        average = true;
        break;
      case c10d::ReduceOp::MAX:
        op = MPI_MAX;
        break;
      case c10d::ReduceOp::MIN:
        op = MPI_MIN;
        break;
      default:
        throw InternalError("MPI allreduce offers SUM, AVG, MAX and MIN only");
    }
    Job job = make_job("all-reduce", c10d::OpType::ALLREDUCE, {tensor});
    // MPI knows no 16-bit floating types: they are summed in float32, which is also more exact.
    at::Tensor buffer = tensor;
    const bool widened = tensor.scalar_type() == at::kBFloat16 || tensor.scalar_type() == at::kHalf;
    if (widened) buffer = tensor.to(at::kFloat);
    const MPI_Datatype type = mpi_type(buffer.scalar_type());
    if (type == MPI_DATATYPE_NULL) {
      throw InternalError(
          fmt::format("MPI allreduce cannot reduce tensors of dtype {}", at::toString(tensor.scalar_type())));
    }
    if (widened || average) {
      job.keep_alive.push_back(buffer);
      job.finish = [tensor, buffer, widened, average, ranks = size_]() mutable {
        if (average) buffer.div_(ranks);
        if (widened) tensor.copy_(buffer);
      };
    }
    const std::int64_t item = static_cast<std::int64_t>(buffer.element_size()), count = buffer.numel();
    const std::int64_t limit = std::max<std::int64_t>(1, chunk_bytes_ / item);
    auto* bytes = static_cast<char*>(buffer.data_ptr());
    job.post = [=, comm = comm_, done = std::int64_t{0}](Requests& requests) mutable {
      if (done >= count) return false;
      const auto next = std::min(limit, count - done);
      check_mpi(MPI_Iallreduce(MPI_IN_PLACE, bytes + done * item, static_cast<int>(next), type, op, comm,
                               &requests.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Iallreduce");
      done += next;
      return true;
    };
    return submit(std::move(job));
  }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& opts) override {
    at::Tensor tensor = single(tensors, "broadcast");
    Job job = make_job("broadcast", c10d::OpType::BROADCAST, {tensor});
    const auto count = static_cast<std::int64_t>(tensor.nbytes()), limit = chunk_bytes_;
    auto* bytes = static_cast<char*>(tensor.data_ptr());
    job.post = [=, comm = comm_, root = static_cast<int>(opts.rootRank),
                done = std::int64_t{0}](Requests& requests) mutable {
      if (done >= count) return false;
      const auto next = std::min(limit, count - done);
      check_mpi(MPI_Ibcast(bytes + done, static_cast<int>(next), MPI_BYTE, root, comm,
                           &requests.emplace_back(MPI_REQUEST_NULL)),
                "MPI_Ibcast");
      done += next;
      return true;
    };
    return submit(std::move(job));
  }

  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions&) override {
    Job job = make_job("barrier", c10d::OpType::BARRIER, {});
    job.post = [comm = comm_, posted = false](Requests& requests) mutable {
      if (std::exchange(posted, true)) return false;
      check_mpi(MPI_Ibarrier(comm, &requests.emplace_back(MPI_REQUEST_NULL)), "MPI_Ibarrier");
      return true;
    };
    return submit(std::move(job));
  }

  c10::intrusive_ptr<c10d::Work> allgather(std::vector<std::vector<at::Tensor>>& outputs,
                                           std::vector<at::Tensor>& inputs, const c10d::AllgatherOptions&) override {
    const at::Tensor input = single(inputs, "allgather");
    require(outputs.size() == 1 && outputs[0].size() == static_cast<std::size_t>(size_),
            "MPI allgather needs one list with one output tensor per rank");
    return exchange("all-gather", c10d::OpType::ALLGATHER, std::vector<at::Tensor>(outputs[0].size(), input),
                    outputs[0]);
  }

  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& output, at::Tensor& input,
                                                 const c10d::AllgatherOptions&) override {
    require(output.is_contiguous() && output.numel() == input.numel() * size_,
            "MPI allgather needs a contiguous output of size() times the input");
    const auto ranks = static_cast<std::size_t>(size_);
    const at::Tensor rows = output.view({size_, -1});
    std::vector<at::Tensor> parts;
    for (int r = 0; r < size_; ++r) parts.push_back(rows[r]);
    return exchange("all-gather", c10d::OpType::_ALLGATHER_BASE, std::vector<at::Tensor>(ranks, input), parts,
                    {output});
  }

  c10::intrusive_ptr<c10d::Work> alltoall(std::vector<at::Tensor>& outputs, std::vector<at::Tensor>& inputs,
                                          const c10d::AllToAllOptions&) override {
    require(outputs.size() == static_cast<std::size_t>(size_) && inputs.size() == outputs.size(),
            "MPI alltoall needs one input and one output tensor per rank");
    return exchange("all-to-all", c10d::OpType::ALLTOALL, inputs, outputs);
  }

  c10::intrusive_ptr<c10d::Work> alltoall_base(at::Tensor& output, at::Tensor& input,
                                               std::vector<std::int64_t>& output_splits,
                                               std::vector<std::int64_t>& input_splits,
                                               const c10d::AllToAllOptions&) override {
    return exchange("all-to-all", c10d::OpType::ALLTOALL_BASE, split(input, input_splits), split(output, output_splits),
                    {output});
  }

  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int peer, int tag) override {
    return point_to_point("send", c10d::OpType::SEND, single(tensors, "send"), peer, tag);
  }
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int peer, int tag) override {
    return point_to_point("recv", c10d::OpType::RECV, single(tensors, "recv"), peer, tag);
  }

 private:
  at::Tensor single(const std::vector<at::Tensor>& tensors, const char* name) const {
    if (tensors.size() != 1) throw InternalError(fmt::format("MPI {} takes one tensor at a time", name));
    check(tensors[0], name);
    return tensors[0];
  }

  static void check(const at::Tensor& tensor, const char* name) {
    if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.is_contiguous()) {
      throw InternalError(fmt::format("MPI {} needs a contiguous CPU tensor", name));
    }
  }

  std::vector<at::Tensor> split(const at::Tensor& tensor, const std::vector<std::int64_t>& sizes) const {
    check(tensor, "alltoall");
    if (!sizes.empty()) return tensor.split_with_sizes(sizes, 0);
    require(tensor.dim() > 0 && tensor.size(0) % size_ == 0,
            "MPI alltoall without split sizes needs a first dimension divisible by the number of ranks");
    return tensor.split_with_sizes(std::vector<std::int64_t>(static_cast<std::size_t>(size_), tensor.size(0) / size_),
                                   0);
  }

  /// `name` is a literal. `same_size`: the ranks must agree on the size of the first tensor.
  Job make_job(const char* name, c10d::OpType type, std::vector<at::Tensor> result, bool same_size = true) {
    Job job;
    job.description = name;
    if (same_size && !result.empty()) {
      const at::Tensor& tensor = result[0];
      job.description +=
          fmt::format(" ({}, {} bytes)", c10::getDtypeNames(tensor.scalar_type()).first, tensor.nbytes());
    }
    job.work = c10::make_intrusive<MpiWork>(rank_, type, name, std::move(result));
    return job;
  }

  static std::vector<Piece> pieces_of(const std::vector<at::Tensor>& tensors, int skip) {
    std::vector<Piece> pieces;
    for (std::size_t r = 0; r < tensors.size(); ++r) {
      if (static_cast<int>(r) == skip || !tensors[r].defined() || tensors[r].numel() == 0) continue;
      pieces.push_back({static_cast<char*>(tensors[r].data_ptr()), static_cast<std::int64_t>(tensors[r].nbytes()),
                        static_cast<int>(r)});
    }
    return pieces;
  }

  /// inputs[r] goes to rank r, outputs[r] comes from rank r. In rounds of one chunk per peer; a pair of ranks agrees on
  /// its number of rounds because it agrees on the sizes.
  c10::intrusive_ptr<c10d::Work> exchange(const char* name, c10d::OpType type, const std::vector<at::Tensor>& inputs,
                                          const std::vector<at::Tensor>& outputs, std::vector<at::Tensor> result = {}) {
    for (const auto* list : {&inputs, &outputs}) {
      for (const auto& tensor : *list) {
        if (tensor.defined()) check(tensor, name);
      }
    }
    const bool same_size = type == c10d::OpType::ALLGATHER || type == c10d::OpType::_ALLGATHER_BASE;
    Job job = make_job(name, type, result.empty() ? outputs : std::move(result), same_size);
    job.is_awaited = !same_size;  // what all-to-all carries is large, and Communicator waits for it at once
    job.keep_alive = inputs;
    job.keep_alive.insert(job.keep_alive.end(), outputs.begin(), outputs.end());
    const at::Tensor to_self = inputs[static_cast<std::size_t>(rank_)],
                     from_self = outputs[static_cast<std::size_t>(rank_)];
    job.post = [sends = pieces_of(inputs, rank_), receives = pieces_of(outputs, rank_), to_self, from_self,
                comm = comm_, limit = chunk_bytes_, done = std::int64_t{0}](Requests& requests) mutable {
      if (done == 0 && to_self.defined() && from_self.defined() && from_self.numel() > 0) {
        require(to_self.nbytes() == from_self.nbytes(), "what a rank sends to itself must fit what it receives");
        std::memcpy(from_self.data_ptr(), to_self.data_ptr(), to_self.nbytes());
      }
      for (const Piece& piece : receives) {
        if (done >= piece.count) continue;
        check_mpi(MPI_Irecv(piece.bytes + done, static_cast<int>(std::min(limit, piece.count - done)), MPI_BYTE,
                            piece.peer, collective_tag, comm, &requests.emplace_back(MPI_REQUEST_NULL)),
                  "MPI_Irecv");
      }
      for (const Piece& piece : sends) {
        if (done >= piece.count) continue;
        check_mpi(MPI_Isend(piece.bytes + done, static_cast<int>(std::min(limit, piece.count - done)), MPI_BYTE,
                            piece.peer, collective_tag, comm, &requests.emplace_back(MPI_REQUEST_NULL)),
                  "MPI_Isend");
      }
      done += limit;
      return !requests.empty();
    };
    return submit(std::move(job));
  }

  c10::intrusive_ptr<c10d::Work> point_to_point(const char* name, c10d::OpType type, const at::Tensor& tensor, int peer,
                                                int tag) {
    Job job = make_job(name, type, {tensor});
    job.point_to_point = true;
    const bool sending = type == c10d::OpType::SEND;
    job.post = [=, comm = comm_, limit = chunk_bytes_, bytes = static_cast<char*>(tensor.data_ptr()),
                count = static_cast<std::int64_t>(tensor.nbytes()),
                done = std::int64_t{0}](Requests& requests) mutable {
      if (done >= count) return false;
      const int next = static_cast<int>(std::min(limit, count - done));
      MPI_Request* request = &requests.emplace_back(MPI_REQUEST_NULL);
      const int code = sending ? MPI_Isend(bytes + done, next, MPI_BYTE, peer, collective_tag + 1 + tag, comm, request)
                               : MPI_Irecv(bytes + done, next, MPI_BYTE, peer, collective_tag + 1 + tag, comm, request);
      check_mpi(code, sending ? "MPI_Isend" : "MPI_Irecv");
      done += next;
      return true;
    };
    return submit(std::move(job));
  }

  c10::intrusive_ptr<c10d::Work> submit(Job job) {
    auto work = job.work;
    job.complete = [work](const std::exception_ptr& error) { work->complete(error); };
    worker_.submit(std::move(job));
    return work;
  }

  MPI_Comm comm_;
  std::int64_t chunk_bytes_;
  MpiWorker worker_;
};

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_mpi_backend(MPI_Comm parent, const MpiBackendOptions& options) {
  const std::int64_t channel = options.watchdog->open_channel();  // before the first wait for the others
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(parent, &comm), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  int rank = 0, size = 1;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return c10::make_intrusive<MpiBackend>(comm, rank, size, options, channel);
}

}  // namespace sage
