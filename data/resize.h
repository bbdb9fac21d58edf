// Resizing as PIL does it, bit for bit.
#pragma once
#include <cstdint>

namespace sage {

/// A rectangle of pixels.
struct PixelBox {
  std::int64_t y = 0, x = 0, height = 0, width = 0;
};

/// 8-bit pixels [rows, columns, channels], interleaved.
struct PixelView {
  const std::uint8_t* pixels = nullptr;
  std::int64_t height = 0, width = 0, channels = 0;
};

/// Brings the part `box` of `source` to `height` x `width` pixels, by the bilinear filter widened to the scale
/// ("antialiased": PIL's Image.resize(..., BILINEAR) after a crop, and torchvision's resize of 8-bit images within one
/// level), and writes the rectangle `window` of the result to `target` [window.height, window.width, channels].
/// Weights are whole numbers of 2^-22, each direction rounds to 8 bits: the same bits on every machine.
/// Memory: box.height x window.width x channels bytes.
void resize_bilinear(const PixelView& source, const PixelBox& box, std::int64_t height, std::int64_t width,
                     const PixelBox& window, std::uint8_t* target);

}  // namespace sage
