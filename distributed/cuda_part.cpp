#include "distributed/cuda_part.h"

#include "core/plugin.h"
#include "distributed/cuda_exports.h"

namespace sage::cuda {
namespace {

/// The function of the loaded CUDA part that has the type of `declared`.
template <class Function>
Function* exported(Function*, const char* name) {
  return reinterpret_cast<Function*>(load_cuda_function(name));
}

}  // namespace

// Only the type of each exported function is used here: nothing of the CUDA part is linked.
#define SAGE_EXPORTED(name) exported(static_cast<decltype(&::name)>(nullptr), #name)

int device_count() { return SAGE_EXPORTED(sage_cuda_device_count)(); }
void set_device(int device) { SAGE_EXPORTED(sage_cuda_set_device)(device); }
void synchronize(int device) { SAGE_EXPORTED(sage_cuda_synchronize)(device); }

std::string device_name(int device) {
  char text[256] = {};
  SAGE_EXPORTED(sage_cuda_device_name)(device, text, static_cast<int>(sizeof(text)));
  return text;
}

DeviceUuid device_uuid(int device) {
  DeviceUuid uuid{};
  SAGE_EXPORTED(sage_cuda_device_uuid)(device, uuid.data());
  return uuid;
}

Memory memory(int device) {
  Memory memory;
  SAGE_EXPORTED(sage_cuda_memory)(device, &memory.peak_allocated, &memory.peak_reserved, &memory.total);
  return memory;
}

std::shared_ptr<void> capture_graph(int device, const std::function<void()>& work) {
  const auto call = [](void* context) { (*static_cast<const std::function<void()>*>(context))(); };
  void* graph =
      SAGE_EXPORTED(sage_cuda_graph_capture)(device, call, const_cast<void*>(static_cast<const void*>(&work)));
  return {graph, [](void* recording) { SAGE_EXPORTED(sage_cuda_graph_release)(recording); }};
}

void replay_graph(void* graph) { SAGE_EXPORTED(sage_cuda_graph_replay)(graph); }
void reset_peak_memory(int device) { SAGE_EXPORTED(sage_cuda_reset_peak_memory)(device); }
int runtime_version() { return SAGE_EXPORTED(sage_cuda_runtime_version)(); }
int driver_version() { return SAGE_EXPORTED(sage_cuda_driver_version)(); }
int nccl_version() { return SAGE_EXPORTED(sage_nccl_version)(); }

}  // namespace sage::cuda
