// The named state of a model, out of it and into it. Files are core/safetensors' matter.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "models/classifier.h"

namespace sage {

/// Copies of all parameters, then all buffers, on the CPU and contiguous, with the names of torchvision's state_dict.
std::vector<NamedTensor> copy_state(const Module& model);

/// Writes `state` (in any order, on any device) into the model's parameters and buffers, which stay the same tensors.
/// Names and shapes must fit exactly; floating-point values are converted to the model's type. Otherwise throws
/// CheckpointError, which names up to five missing, unexpected and wrong-shaped tensors each (with both shapes), says
/// in `what` whose weights they are and in `advice` what to do, and changes nothing.
void load_state(Module& model, std::span<const NamedTensor> state, const std::string& what = "the weights",
                const std::string& advice =
                    "give the model.name, model.width, model.stem and data set with which they "
                    "were trained");

/// Makes `to` hold the values of `from`, which must be of the same architecture (else CheckpointError).
void copy_parameters(const Module& from, Module& to);

/// Starts `model` from the weights of a safetensors file with its names: torchvision's, or a checkpoint of this
/// program. A head for another number of classes stays as it is, and its tensors are returned, each with the file's
/// shape and the model's; everything else must fit as in load_state(). Only counts of batches (num_batches_tracked) may
/// be missing: older files have none. Throws CheckpointError naming the file and the tensors.
std::vector<std::string> load_pretrained(Classifier& model, const std::filesystem::path& file);

}  // namespace sage
