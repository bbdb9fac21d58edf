// What the program asks of the CUDA part (the library sage_cuda, loaded at the first call). Each function throws
// EnvironmentError, saying why, where that part cannot be loaded; ask cuda_part_available() of core/plugin.h first.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "distributed/device_choice.h"

namespace sage::cuda {

/// Visible devices; 0 without any.
int device_count();
/// Makes `device` the current one of the calling thread.
void set_device(int device);
std::string device_name(int device);
DeviceUuid device_uuid(int device);
/// Waits until all work queued on the device is done.
void synchronize(int device);

/// In bytes.
struct Memory {
  std::int64_t peak_allocated = 0;  ///< highest use by tensors since the last reset
  std::int64_t peak_reserved = 0;   ///< highest taken from the driver since the last reset
  std::int64_t total = 0;           ///< of the device
};
Memory memory(int device);
void reset_peak_memory(int device);

/// Records what `work` launches on the device instead of running it (a CUDA graph). It must use one device, allocate
/// through LibTorch only, never wait for the device, and have run before, so that libraries are set up.
std::shared_ptr<void> capture_graph(int device, const std::function<void()>& work);
/// Runs a recording on the current stream, without waiting.
void replay_graph(void* graph);

/// As CUDA and NCCL number themselves: 13000 is CUDA 13.0, 22809 is NCCL 2.28.9. The driver's is 0 without a driver.
int runtime_version();
int driver_version();
int nccl_version();

}  // namespace sage::cuda
