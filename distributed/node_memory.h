// What all ranks of a node only read, and is large, is made by one of them and held once.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// What one rank makes for all ranks of its node.
struct NodeShared {
  std::string text;                 ///< small: it travels to all ranks of the job
  std::vector<at::Tensor> tensors;  ///< CPU, contiguous
};

/// Memory for a uint8 tensor of these sizes.
using AllocateShared = std::function<at::Tensor(at::IntArrayRef sizes)>;

/// ALL ranks of `communicator`: the lowest rank of each node runs `make`, and all ranks of the node get what it made,
/// with the same bytes of memory behind the tensors. Nobody can write to them any more: an attempt is a segmentation
/// fault. Tensors (or parts of tensors) that come from the `allocate` given to `make` are shared where they are, others
/// are copied once.
///
/// The memory is an anonymous file (memfd_create(2)) that the other ranks open through /proc: it has no name, does not
/// count against /dev/shm, and is gone with the last process that maps it, however that ends. A node is therefore what
/// has one kernel, one process namespace and one user. A rank that cannot open it says why and runs `make` for itself.
///
/// If `make` throws on any rank, all throw, as in Communicator::all_or_none. The others wait in a collective meanwhile:
/// the communicator's deadline has to leave `make` its time.
NodeShared once_per_node(Communicator& communicator,
                         const std::function<NodeShared(const AllocateShared& allocate)>& make);

}  // namespace sage
