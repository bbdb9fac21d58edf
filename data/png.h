// PNG files of images held as bytes.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace sage {

/// The bytes of a PNG file (8 bits a channel). `image`: uint8 on the CPU, grey [H, W] or [1, H, W], or RGB [3, H, W]
/// (channel planes; any strides). Throws InternalError for another shape or type.
std::string encode_png(const at::Tensor& image);

}  // namespace sage
