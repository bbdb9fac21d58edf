// What every part of a running job shares.
#pragma once
#include <memory>

#include "core/config.h"
#include "distributed/communicator.h"
#include "distributed/runtime.h"
#include "training/resources.h"
#include "training/run_folder.h"

namespace sage {

struct Job {
  /// ALL ranks. Chooses device and threads and connects the ranks.
  Job(Runtime& runtime_of_process, const DeviceConfig& config, const DistributedConfig& distributed = {});

  bool is_lead() const { return communicator->rank() == 0; }
  /// ALL ranks. Versions, hosts and devices, for the run folder.
  RunInfo info(const std::vector<std::string>& command_line) const;

  Runtime& runtime;
  at::Device device;
  std::unique_ptr<Communicator> communicator;  ///< gradients, sketches and everything else
  std::unique_ptr<Communicator> statistics;    ///< batch statistics: a channel of their own
  PhaseTimer timer;
};

/// Hooks of resources.h for `device`; empty for the CPU.
DeviceMemoryHooks device_memory_hooks(at::Device device);

/// "sage", "libtorch", "mpi", and where they are there "cuda", "cuda_driver", "nccl".
std::map<std::string, std::string> all_versions();

}  // namespace sage
