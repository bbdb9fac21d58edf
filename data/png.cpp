#include "data/png.h"

#include <png.h>

#include <cstring>

#include "core/error.h"

namespace sage {

std::string encode_png(const at::Tensor& image) {
  require(image.defined() && image.scalar_type() == at::kByte && image.device().is_cpu(),
          "encode_png: expected bytes on the CPU");
  const at::Tensor planes = image.dim() == 2 ? image.unsqueeze(0) : image;
  require(planes.dim() == 3 && (planes.size(0) == 1 || planes.size(0) == 3) && planes.numel() > 0,
          "encode_png: expected [H, W], [1, H, W] or [3, H, W]");
  const at::Tensor pixels = planes.permute({1, 2, 0}).contiguous();  // PNG interleaves the channels

  png_image header;
  std::memset(&header, 0, sizeof(header));
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(pixels.size(1));
  header.height = static_cast<png_uint_32>(pixels.size(0));
  header.format = pixels.size(2) == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  std::string png(PNG_IMAGE_PNG_SIZE_MAX(header), '\0');
  png_alloc_size_t size = png.size();
  const int written = png_image_write_to_memory(&header, png.data(), &size, /*convert_to_8_bit=*/0,
                                                pixels.const_data_ptr<std::uint8_t>(), /*row_stride=*/0, nullptr);
  require(written != 0, "encode_png: libpng refused the image");
  png.resize(size);
  return png;
}

}  // namespace sage
