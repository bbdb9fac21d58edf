// Copies of tensors that later steps do not touch, made without stopping the training for them.
#pragma once
#include <c10/core/Event.h>

#include <memory>
#include <span>
#include <vector>

#include "core/named_tensor.h"

namespace sage {

/// Copies in host memory, contiguous. From a GPU: into pinned memory, in the order of the work of this thread's stream,
/// and under way until wait() returns.
class HostCopies {
 public:
  std::vector<NamedTensor> copy(std::span<const NamedTensor> tensors);
  /// Any thread: everything copied so far is there. Throws what the device says where it failed.
  void wait() const;

 private:
  std::shared_ptr<c10::Event> copied_;  // null where everything is there already
};

}  // namespace sage
