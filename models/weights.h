// The named state of a model, out of it and into it. Files are core/safetensors' matter.
#pragma once
#include <span>
#include <vector>

#include "models/module.h"

namespace sage {

/// Copies of all parameters, then all buffers, on the CPU and contiguous, with the names of torchvision's state_dict.
std::vector<NamedTensor> copy_state(const Module& model);

/// Writes `state` (in any order, on any device) into the model's parameters and buffers, which stay the same tensors.
/// Names and shapes must fit exactly; floating-point values are converted to the model's type. Otherwise throws
/// CheckpointError, which names up to five missing, unexpected and wrong-shaped tensors each, and changes nothing.
void load_state(Module& model, std::span<const NamedTensor> state);

/// Makes `to` hold the values of `from`, which must be of the same architecture (else CheckpointError).
void copy_parameters(const Module& from, Module& to);

}  // namespace sage
