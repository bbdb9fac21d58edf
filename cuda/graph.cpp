// Recording and replaying work of a device (CUDA graphs), behind the C interface of distributed/cuda_exports.h.
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <exception>
#include <memory>

#include "distributed/cuda_exports.h"

extern "C" {

void* sage_cuda_graph_capture(int device, void (*work)(void*), void* context) {
  const auto index = static_cast<c10::DeviceIndex>(device);
  c10::cuda::set_device(index);
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  c10::cuda::device_synchronize();  // once in a run
  // The default stream cannot be recorded. Thread-local: other threads of the process may go on using the device.
  const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index));
  graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
  try {
    work(context);
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    try {
      graph->capture_end();
    } catch (...) {
      // The recording is broken because of the first error, which is the one to tell.
    }
    std::rethrow_exception(error);
  }
  graph->capture_end();
  return graph.release();
}

void sage_cuda_graph_replay(void* graph) { static_cast<at::cuda::CUDAGraph*>(graph)->replay(); }
void sage_cuda_graph_release(void* graph) { delete static_cast<at::cuda::CUDAGraph*>(graph); }

}  // extern "C"
