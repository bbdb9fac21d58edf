// The C interface between the program and its CUDA part (cuda/, the library sage_cuda), which is loaded at run time so
// that the program starts on machines without a GPU driver. Failures are C++ exceptions.
#pragma once
#include <c10/util/intrusive_ptr.h>

#include <cstdint>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

extern "C" {
/// Number of visible devices; 0 without any. Throws sage::EnvironmentError if the driver refuses.
int sage_cuda_device_count();
void sage_cuda_set_device(int device);
/// Bytes: highest allocated by tensors since the last reset, the same reserved from the driver, and the device's total.
void sage_cuda_memory(int device, std::int64_t* peak_allocated, std::int64_t* peak_reserved, std::int64_t* total);
void sage_cuda_reset_peak_memory(int device);
/// Waits until all work queued on the device is done.
void sage_cuda_synchronize(int device);
/// Writes the device's name, ended by 0, into `text` of `capacity` bytes.
void sage_cuda_device_name(int device, char* text, int capacity);
/// Writes the 16 bytes of the device's UUID.
void sage_cuda_device_uuid(int device, unsigned char* uuid);
int sage_cuda_runtime_version();
int sage_cuda_driver_version();
int sage_nccl_version();
/// Records what `work(context)` launches on the device, without running it. An exception of `work` comes through.
void* sage_cuda_graph_capture(int device, void (*work)(void*), void* context);
/// Runs a recording on the current stream, without waiting.
void sage_cuda_graph_replay(void* graph);
void sage_cuda_graph_release(void* graph);
/// Makes a ProcessGroupNCCL for this rank. ALL ranks; `store` is shared by them.
void sage_make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, int device,
                            std::int64_t timeout_milliseconds, c10::intrusive_ptr<c10d::Backend>* backend);
}
