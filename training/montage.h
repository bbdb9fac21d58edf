// Pictures of what a selection chose, for people.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "data/image_store.h"

namespace sage {

/// At most `most` of `ids`, spread evenly over them: the same for the same ids.
std::vector<std::int64_t> spread(std::span<const std::int64_t> ids, std::size_t most);

/// The un-augmented images of `ids` (at least one) in rows of `columns`, a black line between two, small ones enlarged
/// by a whole factor to 32 pixels and more. `mean` and `deviation`: what the store normalises with, per channel.
/// Returns uint8 [C, H, W] on the CPU; C is 3, or 1 for grey images. Throws InternalError for no ids or another number
/// of channels.
at::Tensor montage(const ImageStore& images, std::span<const std::int64_t> ids, std::span<const float> mean,
                   std::span<const float> deviation, std::int64_t columns);

}  // namespace sage
