#include "training/host_copies.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace sage {

std::vector<NamedTensor> HostCopies::copy(std::span<const NamedTensor> tensors) {
  const at::NoGradGuard no_gradients;
  std::vector<NamedTensor> copies;
  copies.reserve(tensors.size());
  for (const NamedTensor& from : tensors) {
    const bool is_on_host = from.tensor.device().is_cpu();
    const auto options = at::TensorOptions(from.tensor.scalar_type()).pinned_memory(!is_on_host);
    at::Tensor copy = at::empty(from.tensor.sizes(), options);
    copy.copy_(from.tensor, /*non_blocking=*/!is_on_host);
    if (!is_on_host) {
      const at::Device device = from.tensor.device();
      const c10::impl::VirtualGuardImpl guard(device.type());
      if (!copied_) copied_ = std::make_shared<c10::Event>(device.type());
      copied_->record(guard.getStream(device));  // the last record counts
    }
    copies.push_back({from.name, std::move(copy)});
  }
  return copies;
}

void HostCopies::wait() const {
  if (copied_) copied_->synchronize();
}

}  // namespace sage
