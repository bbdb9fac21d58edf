// Do all ranks hold the same parameters? Each value is hashed with its place, so that one flipped bit, two exchanged
// values and a NaN are seen; ranks then compare a few numbers.
#pragma once
#include <cstdint>
#include <span>

#include "core/named_tensor.h"
#include "distributed/communicator.h"

namespace sage {

/// [tensors], int64, on their device: the hash of each tensor's bits in logical order. The same on every device and for
/// every memory order. Tensors of one device, of any dtype of at most 8 bytes; works through them in pieces, so that
/// little memory is needed.
at::Tensor parameter_hashes(std::span<const NamedTensor> tensors);
/// One number for all of them, in their order.
std::uint64_t parameter_hash(std::span<const NamedTensor> tensors);

/// ALL ranks, with tensors of the same names, on the communicator's device. If their bits are not the same on all
/// ranks, throws CommunicationError on every rank, naming the first tensors that differ and the ranks that hold
/// something else than most. One collective of 16 bytes, and another only if something differs.
void check_same_parameters(std::span<const NamedTensor> tensors, Communicator& communicator);

}  // namespace sage
