#include "training/job.h"

#include <ATen/Context.h>
#include <fmt/ranges.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <cmath>

#include "distributed/cuda_part.h"
#include "distributed/process_group_communicator.h"

namespace sage {

DeviceMemoryHooks device_memory_hooks(at::Device device) {
  if (!device.is_cuda()) return {};
  const int index = device.index();
  return {.peak_bytes = [index] { return cuda::memory(index).peak_allocated; },
          .reset_peak = [index] { cuda::reset_peak_memory(index); },
          .synchronize = [index] { cuda::synchronize(index); }};
}

std::map<std::string, std::string> all_versions() {
  std::map<std::string, std::string> versions = {{"sage", fmt::format("{} ({})", SAGE_VERSION, git_revision())},
                                                 {"libtorch", TORCH_VERSION}};
  const LibraryVersions libraries = library_versions();
  versions["mpi"] = libraries.mpi;
  versions["cuda"] = libraries.cuda_runtime;
  versions["cuda_driver"] = libraries.cuda_driver;
  versions["nccl"] = libraries.nccl;
  std::erase_if(versions, [](const auto& entry) { return entry.second.empty(); });
  return versions;
}

namespace {

/// On a GPU: float32 means float32 (LibTorch's default for convolutions there is TF32, with 10 bits), and cuDNN takes
/// deterministic algorithms: so that ranks agree with one rank, and a repeat or a resume gives the same bits.
at::Device ieee_arithmetic(at::Device device) {
  if (device.is_cuda()) {
    at::globalContext().setFloat32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV, at::Float32Precision::IEEE);
    at::globalContext().setDeterministicCuDNN(true);
  }
  return device;
}

std::chrono::milliseconds deadline_of(const DistributedConfig& config) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(1000.0 * config.deadline_seconds)));
}

}  // namespace

Job::Job(Runtime& runtime_of_process, const DeviceConfig& config, const DistributedConfig& distributed)
    : runtime(runtime_of_process),
      device(runtime.configure(config)),
      communicator(make_communicator(runtime, ieee_arithmetic(device), {.deadline = deadline_of(distributed)})),
      statistics(make_communicator(runtime, device, {.deadline = deadline_of(distributed)})),
      timer(device_memory_hooks(device)) {
  runtime.set_deadline(deadline_of(distributed));
}

RunInfo Job::info(const std::vector<std::string>& command_line) const {
  RunInfo info;
  info.versions = all_versions();
  info.hosts = communicator->all_gather_strings(runtime.host());
  info.devices = communicator->all_gather_strings(device.str());
  info.command_line = fmt::format("{}", fmt::join(command_line, " "));
  info.start_time = now_text();
  return info;
}

}  // namespace sage
