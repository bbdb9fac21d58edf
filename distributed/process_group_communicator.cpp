#include "distributed/process_group_communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>

#include <exception>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "core/error.h"
#include "core/plugin.h"
#include "distributed/cuda_exports.h"
#include "distributed/mpi_backend.h"

namespace sage {
namespace {

class ProcessGroupCommunicator : public Communicator {
 public:
  /// `watchdog`: where collectives are counted; null if the backend does so.
  ProcessGroupCommunicator(c10::intrusive_ptr<c10d::ProcessGroup> group, at::Device device,
                           std::shared_ptr<Watchdog> watchdog)
      : group_(std::move(group)),
        backend_(group_->getBackend(device.type())),
        device_(device),
        watchdog_(std::move(watchdog)),
        channel_(watchdog_ ? watchdog_->open_channel() : 0) {}

  ~ProcessGroupCommunicator() override {
    if (!device_.is_cuda()) return;  // the MPI backend ends with its last owner
    try {
      if (std::uncaught_exceptions() > 0) {
        backend_->abort();
      } else {
        backend_->shutdown();
      }
    } catch (const std::exception&) {
      // Nothing is left to be done with a communicator that cannot be closed.
    }
  }

  int rank() const override { return group_->getRank(); }
  int size() const override { return group_->getSize(); }
  at::Device device() const override { return device_; }

  void all_reduce_sum(at::Tensor tensor) override { all_reduce(std::move(tensor), c10d::ReduceOp::SUM); }
  void all_reduce_max(at::Tensor tensor) override { all_reduce(std::move(tensor), c10d::ReduceOp::MAX); }

  void broadcast(at::Tensor tensor, int root) override {
    check(tensor);
    require(root >= 0 && root < size(), "broadcast from a rank that is not there");
    count("broadcast", tensor.nbytes());
    if (tensor.numel() == 0) return;
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{std::move(tensor)};
    wait(backend_->broadcast(tensors, options));
  }

  at::Tensor all_gather_rows(const at::Tensor& rows) override {
    check(rows);
    require(rows.dim() >= 1, "all_gather_rows needs a tensor with rows");
    count("all-gather", rows.nbytes());
    at::Tensor mine = at::full({1}, rows.size(0), at::TensorOptions(at::kLong).device(device_));
    at::Tensor counts = at::empty({size()}, mine.options());
    wait(backend_->_allgather_base(counts, mine));
    counts = counts.cpu();
    const std::vector<std::int64_t> sizes(counts.const_data_ptr<std::int64_t>(),
                                          counts.const_data_ptr<std::int64_t>() + size());
    std::int64_t total = 0;
    for (const auto n : sizes) total += n;
    auto shape = rows.sizes().vec();
    shape[0] = total;
    at::Tensor all = at::empty(shape, rows.options().requires_grad(false));
    if (all.numel() == 0) return all;
    std::vector<at::Tensor> from = all.split_with_sizes(sizes, 0);
    std::vector<at::Tensor> to(static_cast<std::size_t>(size()), rows.detach());
    wait(backend_->alltoall(from, to));
    return all;
  }

  void exchange(int partner, const at::Tensor& send, at::Tensor receive) override {
    require(partner >= -1 && partner < size(), "exchange with a rank that is not there");
    std::vector<at::Tensor> to(static_cast<std::size_t>(size())), from(to.size());
    if (partner >= 0) {
      to[static_cast<std::size_t>(partner)] = send;
      from[static_cast<std::size_t>(partner)] = std::move(receive);
    }
    exchange_all(to, from);
  }

  void exchange_all(std::span<const at::Tensor> to, std::span<at::Tensor> from) override {
    const auto ranks = static_cast<std::size_t>(size()), self = static_cast<std::size_t>(rank());
    require(to.size() == ranks && from.size() == ranks, "exchange_all needs one entry per rank");
    at::ScalarType type = at::kFloat;
    std::size_t bytes = 0;
    for (std::size_t r = 0; r < ranks; ++r) {
      for (const at::Tensor* tensor : {&to[r], static_cast<const at::Tensor*>(&from[r])}) {
        if (!tensor->defined()) continue;
        check(*tensor);
        type = tensor->scalar_type();
      }
      if (r != self && to[r].defined()) bytes += to[r].nbytes();
    }
    count("exchange", bytes);
    // Nothing to or from a rank is a tensor of no elements. NCCL groups the transfers of one alltoall.
    const at::Tensor nothing = at::empty({0}, at::TensorOptions(type).device(device_));
    std::vector<at::Tensor> inputs(ranks, nothing), outputs(ranks, nothing);
    for (std::size_t r = 0; r < ranks; ++r) {
      if (to[r].defined()) inputs[r] = to[r].detach();
      if (from[r].defined()) outputs[r] = from[r];
    }
    wait(backend_->alltoall(outputs, inputs));
  }

  void barrier() override {
    count("barrier", 0);
    c10d::BarrierOptions options;
    if (device_.is_cuda()) options.device = device_;
    wait(backend_->barrier(options));
  }

  Traffic traffic() const override { return traffic_; }
  void reset_traffic() override { traffic_ = {}; }
  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const override { return group_; }

 private:
  void all_reduce(at::Tensor tensor, c10d::ReduceOp::RedOpType op) {
    check(tensor);
    count("all-reduce", tensor.nbytes());
    if (tensor.numel() == 0) return;
    c10d::AllreduceOptions options;
    options.reduceOp = op;
    std::vector<at::Tensor> tensors{std::move(tensor)};
    wait(backend_->allreduce(tensors, options));
  }

  void check(const at::Tensor& tensor) const {
    if (!tensor.defined() || tensor.device().type() != device_.type() || !tensor.is_contiguous()) {
      throw InternalError(fmt::format("a collective needs a contiguous tensor on {}", device_.str()));
    }
  }

  void count(const char* verb, std::size_t bytes) {
    if (watchdog_) watchdog_->submitted(channel_, verb);
    traffic_.bytes_sent += static_cast<std::int64_t>(bytes);
    ++traffic_.calls;
  }

  /// On CUDA this orders the current stream after the collective and does not block the host.
  static void wait(const c10::intrusive_ptr<c10d::Work>& work) {
    if (work) work->wait();
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  c10::intrusive_ptr<c10d::Backend> backend_;
  at::Device device_;
  std::shared_ptr<Watchdog> watchdog_;
  std::int64_t channel_;
  Traffic traffic_;
};

/// A key-value store of all ranks, served by rank 0 on a free port that MPI makes known. ALL ranks.
c10::intrusive_ptr<c10d::Store> make_store(Runtime& runtime, std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = runtime.rank() == 0;
  options.waitWorkers = false;
  options.timeout = timeout;
  c10::intrusive_ptr<c10d::TCPStore> store;
  // An address that is right on every node of the job; one node needs no name service.
  char host[MPI_MAX_PROCESSOR_NAME] = "127.0.0.1";
  if (runtime.local_size() != runtime.size()) runtime.host().copy(host, sizeof(host) - 1);
  if (options.isServer) {
    store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
    options.port = store->getPort();
  }
  int port = options.port;
  check_mpi(MPI_Bcast(host, static_cast<int>(sizeof(host)), MPI_CHAR, 0, runtime.world()), "MPI_Bcast");
  check_mpi(MPI_Bcast(&port, 1, MPI_INT, 0, runtime.world()), "MPI_Bcast");
  if (!store) {
    options.port = static_cast<std::uint16_t>(port);
    store = c10::make_intrusive<c10d::TCPStore>(host, options);
  }
  return store;
}

}  // namespace

std::unique_ptr<Communicator> make_communicator(Runtime& runtime, at::Device device,
                                                const CommunicatorOptions& options) {
  if (runtime.size() == 1) return make_single_communicator(device);
  auto group = c10::make_intrusive<c10d::ProcessGroup>(runtime.rank(), runtime.size());
  if (device.is_cpu()) {
    MpiBackendOptions mpi;
    mpi.chunk_bytes = options.chunk_bytes;
    mpi.deadline = options.deadline;
    mpi.abandoned = runtime.abandoned();
    mpi.watchdog = runtime.watchdog();
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::MPI,
                      make_mpi_backend(runtime.world(), mpi));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::MPI);
  } else {
    require(device.is_cuda() && device.has_index(), "a communicator lives on the CPU or on one CUDA device");
    const auto make = reinterpret_cast<decltype(&sage_make_nccl_backend)>(load_cuda_function("sage_make_nccl_backend"));
    c10::intrusive_ptr<c10d::Backend> backend;
    make(make_store(runtime, options.deadline), runtime.rank(), runtime.size(), device.index(),
         options.deadline.count(), &backend);
    group->setBoundDeviceId(device);
    group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
  }
  return std::make_unique<ProcessGroupCommunicator>(std::move(group), device,
                                                    device.is_cuda() ? runtime.watchdog() : nullptr);
}

}  // namespace sage
