// NCCL process groups, device choice and memory figures, behind the C interface of distributed/cuda_exports.h.
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "core/error.h"
#include "distributed/cuda_exports.h"

namespace {

void check(cudaError_t code, const char* call) {
  if (code != cudaSuccess) {
    throw sage::EnvironmentError(fmt::format("{} failed: {}", call, cudaGetErrorString(code)));
  }
}

/// LibTorch's allocator must know of the device before it can be asked about it.
void start_allocator(int device) {
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  if (!c10::cuda::CUDACachingAllocator::get()->initialized()) {
    at::zeros({1}, at::TensorOptions(at::kByte).device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  }
}

}  // namespace

extern "C" {

int sage_cuda_device_count() {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code == cudaErrorNoDevice || code == cudaErrorInsufficientDriver) {
    (void)cudaGetLastError();  // forget it: this is an answer, not a failure
    return 0;
  }
  check(code, "cudaGetDeviceCount");
  return count;
}

void sage_cuda_set_device(int device) { start_allocator(device); }

void sage_cuda_memory(int device, std::int64_t* peak_allocated, std::int64_t* peak_reserved, std::int64_t* total) {
  start_allocator(device);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
  constexpr auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  *peak_allocated = stats.allocated_bytes[all].peak;
  *peak_reserved = stats.reserved_bytes[all].peak;
  std::size_t free_bytes = 0, total_bytes = 0;
  check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  *total = static_cast<std::int64_t>(total_bytes);
}

void sage_cuda_reset_peak_memory(int device) {
  start_allocator(device);
  c10::cuda::CUDACachingAllocator::resetPeakStats(static_cast<c10::DeviceIndex>(device));
}

void sage_cuda_synchronize(int device) {
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

void sage_cuda_device_name(int device, char* text, int capacity) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  const std::string name = properties.name;
  const auto length = std::min(name.size(), static_cast<std::size_t>(std::max(capacity, 1) - 1));
  std::memcpy(text, name.data(), length);
  text[length] = '\0';
}

void sage_cuda_device_uuid(int device, unsigned char* uuid) {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  static_assert(sizeof(properties.uuid) == 16);
  std::memcpy(uuid, &properties.uuid, sizeof(properties.uuid));
}

int sage_cuda_runtime_version() {
  int version = 0;
  check(cudaRuntimeGetVersion(&version), "cudaRuntimeGetVersion");
  return version;
}

int sage_cuda_driver_version() {
  int version = 0;
  check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  return version;
}

int sage_nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) throw sage::EnvironmentError("NCCL does not tell its version");
  return version;
}

void sage_make_nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size, int device,
                            std::int64_t timeout_milliseconds, c10::intrusive_ptr<c10d::Backend>* backend) {
  start_allocator(device);
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = std::chrono::milliseconds(timeout_milliseconds);
  auto nccl = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
  nccl->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
  *backend = nccl;
}

}  // extern "C"
