// JPEG (libjpeg-turbo) and PNG (libpng) files to RGB bytes.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sage {

struct ImageSize {
  std::int64_t height = 0, width = 0;
  bool operator==(const ImageSize&) const = default;
};

struct DecodedImage {
  ImageSize size;
  std::vector<std::uint8_t> pixels;  ///< [height, width, 3]: red, green, blue
};

/// Images of more pixels are refused before memory is taken for them.
inline constexpr std::int64_t most_image_pixels = std::int64_t{1} << 26;

/// Given the size of the whole image, says whether a half, a quarter or an eighth of it in each direction is enough:
/// 1, 2, 4 or 8.
using ChooseReduction = std::function<int(ImageSize whole)>;

/// Decodes an image, whichever of the two formats its first bytes say, as a viewer would show it: rotated as EXIF says
/// (a photo taken upright), grey as equal channels, CMYK and YCCK converted (in Adobe's inverted form, as PIL takes
/// them), transparency left out, 16 bits cut to 8. A JPEG image is decoded at 1/choose() of its size, rounded up, which
/// takes a part of the time; a PNG image always whole. `reduction` (may be null) receives what was done.
/// Memory: 3 bytes a pixel that is made, and for a progressive JPEG its coefficients (up to 8 bytes a pixel).
/// Throws DataError naming `name` where the bytes are no such image, are damaged or cut short, or promise more than
/// most_image_pixels.
DecodedImage decode_image(std::span<const std::uint8_t> bytes, const std::string& name,
                          const ChooseReduction& choose = {}, int* reduction = nullptr);

}  // namespace sage
