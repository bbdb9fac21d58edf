// The communicator of a job: MPI for CPU tensors, NCCL for CUDA tensors, behind the same verbs.
#pragma once
#include <c10/core/Device.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "distributed/communicator.h"
#include "distributed/runtime.h"

namespace sage {

struct CommunicatorOptions {
  std::int64_t chunk_bytes = std::int64_t{2} << 20;               ///< MPI: largest piece of a transfer
  std::chrono::milliseconds deadline = std::chrono::minutes(10);  ///< for each collective
};

/// ALL ranks, with devices of the same type (Runtime::configure gives them). In a world of one: the identity. Several
/// communicators may exist; each has its own channel. They must be destroyed before the Runtime.
std::unique_ptr<Communicator> make_communicator(Runtime& runtime, at::Device device,
                                                const CommunicatorOptions& options = {});

}  // namespace sage
