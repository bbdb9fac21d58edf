#include "distributed/runtime.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/plugin.h"
#include "distributed/cuda_part.h"

namespace sage {

std::string mpi_error_text(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return fmt::format("error code {}", code);
  return std::string(text, static_cast<std::size_t>(length));
}

void check_mpi(int code, const char* call) {
  if (code != MPI_SUCCESS) throw CommunicationError(fmt::format("{} failed: {}", call, mpi_error_text(code)));
}

namespace {

std::string cuda_version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// NCCL numbers 2.9 and later as 10000 major + 100 minor + patch.
std::string nccl_version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

constexpr int nccl_that_shares_devices = 23000;

}  // namespace

LibraryVersions library_versions() {
  LibraryVersions versions;
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  if (MPI_Get_library_version(text, &length) == MPI_SUCCESS) {
    versions.mpi = std::string(text, static_cast<std::size_t>(length));
    // Open MPI: "Open MPI v4.1.4, package: ..., ident: ..."; the name and number are enough.
    versions.mpi = versions.mpi.substr(0, std::min(versions.mpi.find(','), versions.mpi.find('\n')));
  }
  if (!cuda_part_available()) return versions;
  try {
    versions.cuda_runtime = cuda_version_text(cuda::runtime_version());
    versions.nccl = nccl_version_text(cuda::nccl_version());
    if (const int driver = cuda::driver_version(); driver > 0) versions.cuda_driver = cuda_version_text(driver);
  } catch (const std::exception&) {
    // A figure that cannot be had is left empty: asking for versions must not fail.
  }
  return versions;
}

Runtime::Runtime() {
  int started = 0;
  MPI_Initialized(&started);
  require(started == 0, "MPI is started already: there may be one Runtime per process");
  // Every communicator has a worker thread, and several may be inside MPI at once.
  int level = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
  if (level < MPI_THREAD_MULTIPLE) {
    MPI_Finalize();
    throw EnvironmentError(
        "this MPI library gives too little thread support (MPI_THREAD_MULTIPLE is needed): use one built with it");
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node_),
            "MPI_Comm_split_type");
  check_mpi(MPI_Comm_rank(node_, &local_rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(node_, &local_size_), "MPI_Comm_size");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &farewell_), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(farewell_, MPI_ERRORS_RETURN);
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  check_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  host_ = std::string(name, static_cast<std::size_t>(length));
  set_threads(0);
  watchdog_ = std::make_shared<Watchdog>(MPI_COMM_WORLD);
}

Runtime::~Runtime() {
  int ended = 0;
  MPI_Finalized(&ended);
  if (ended) return;
  watchdog_->stop();
  // With transfers under way MPI_Finalize could wait for ever.
  if (abandoned_->load()) abort_job(static_cast<int>(ExitStatus::communication));
  MPI_Comm_free(&node_);
  MPI_Comm_free(&farewell_);
  MPI_Finalize();
}

void Runtime::abort_job(int status) noexcept {
  std::fflush(stdout);
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, status);
  std::_Exit(status);
}

/// Each core is shared evenly by the ranks of this node that may run on it. ALL ranks of the node.
int Runtime::share_of_cores() const {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  if (sched_getaffinity(0, sizeof(mine), &mine) != 0) return 1;
  constexpr int cores = CPU_SETSIZE;
  std::vector<unsigned char> allowed(cores);
  for (int core = 0; core < cores; ++core) allowed[static_cast<std::size_t>(core)] = CPU_ISSET(core, &mine) ? 1 : 0;
  std::vector<int> users(cores, 0), flags(allowed.begin(), allowed.end());
  check_mpi(MPI_Allreduce(flags.data(), users.data(), cores, MPI_INT, MPI_SUM, node_), "MPI_Allreduce");
  double share = 0.0;
  for (std::size_t core = 0; core < allowed.size(); ++core) {
    if (allowed[core]) share += 1.0 / users[core];
  }
  return std::max(1, static_cast<int>(share + 1e-6));
}

void Runtime::set_threads(std::int64_t requested) {
  const int share = share_of_cores();
  if (requested > 0) {
    compute_threads_ = static_cast<int>(requested);
  } else if (const char* text = std::getenv("OMP_NUM_THREADS"); text != nullptr && std::atoi(text) > 0) {
    compute_threads_ = std::atoi(text);
  } else {
    compute_threads_ = share;
  }
  at::set_num_threads(compute_threads_);
  // LibTorch allows this once, before the first use.
  if (at::get_num_interop_threads() != 1) at::set_num_interop_threads(1);
}

std::vector<std::vector<DeviceUuid>> Runtime::devices_of_node(int devices) const {
  const auto ranks = static_cast<std::size_t>(local_size_);
  std::vector<int> counts(ranks);
  check_mpi(MPI_Allgather(&devices, 1, MPI_INT, counts.data(), 1, MPI_INT, node_), "MPI_Allgather");
  const auto most = static_cast<std::size_t>(*std::max_element(counts.begin(), counts.end()));
  std::vector<DeviceUuid> mine(most), all(most * ranks);
  for (int device = 0; device < devices; ++device) {
    mine[static_cast<std::size_t>(device)] = cuda::device_uuid(device);
  }
  const int bytes = static_cast<int>(most * sizeof(DeviceUuid));
  check_mpi(MPI_Allgather(mine.data(), bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, node_), "MPI_Allgather");
  std::vector<std::vector<DeviceUuid>> visible;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(rank * most);
    visible.emplace_back(first, first + counts[rank]);
  }
  return visible;
}

void Runtime::refuse_together(const std::string& problem) const {
  int first = problem.empty() ? size_ : rank_;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "MPI_Allreduce");
  if (first == size_) return;
  std::array<char, 1024> text{};
  if (rank_ == first) problem.copy(text.data(), text.size() - 1);
  check_mpi(MPI_Bcast(text.data(), static_cast<int>(text.size()), MPI_CHAR, first, MPI_COMM_WORLD), "MPI_Bcast");
  throw EnvironmentError(text.data());
}

at::Device Runtime::configure(const DeviceConfig& config) {
  set_threads(config.threads);
  if (config.type == "cpu") return at::Device(at::kCPU);
  if (config.type != "auto" && config.type != "cuda") {
    throw ConfigError(fmt::format("device.type is '{}': expected auto, cpu or cuda", config.type));
  }

  int devices = 0;
  std::string reason = "no CUDA device is visible";
  try {
    devices = cuda::device_count();
  } catch (const Error& error) {
    reason = error.what();
  }
  int fewest = 0;
  check_mpi(MPI_Allreduce(&devices, &fewest, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD), "MPI_Allreduce");
  if (fewest == 0) {
    if (config.type == "auto") return at::Device(at::kCPU);
    refuse_together(devices > 0 ? ""
                                : fmt::format("device.type is cuda, but on host {}: {}; use device.type=cpu or auto",
                                              host_, reason));
  }

  const DeviceChoice choice = choose_devices(devices_of_node(devices));
  refuse_together(!choice.shared || config.allow_sharing
                      ? ""
                      : fmt::format("{} ranks on host {} for {} CUDA device(s): start at most {} rank(s) per node, or "
                                    "set device.allow_sharing=true (NCCL 2.30 or later)",
                                    local_size_, host_, choice.devices, choice.devices));
  int shared_somewhere = choice.shared ? 1 : 0;
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &shared_somewhere, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce");
  if (shared_somewhere != 0 && size_ > 1) {
    const int nccl = cuda::nccl_version();
    refuse_together(nccl >= nccl_that_shares_devices
                        ? ""
                        : fmt::format("several ranks on one CUDA device (device.allow_sharing) need NCCL 2.30 or "
                                      "later; this is NCCL {}",
                                      nccl_version_text(nccl)));
    setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
  }
  // Gradients and batch statistics have a communicator each: NCCL is to launch both in the order of the calls.
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
  const int device = choice.of_rank[static_cast<std::size_t>(local_rank_)];
  cuda::set_device(device);
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(device));
}

}  // namespace sage
