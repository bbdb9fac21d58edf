// Read back by libpng itself; that other programs read these files is checked in tests/training/peer_test.py.
#include "data/png.h"

#include <gtest/gtest.h>
#include <png.h>

#include <cstring>

#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>

#include "core/error.h"

namespace sage {
namespace {

/// uint8 [C, H, W] of a PNG file as it is stored: 1 or 3 channels.
at::Tensor decode(const std::string& png) {
  png_image header;
  std::memset(&header, 0, sizeof(header));
  header.version = PNG_IMAGE_VERSION;
  EXPECT_NE(png_image_begin_read_from_memory(&header, png.data(), png.size()), 0);
  const std::int64_t channels = (header.format & PNG_FORMAT_FLAG_COLOR) != 0 ? 3 : 1;
  EXPECT_EQ(header.format & (PNG_FORMAT_FLAG_ALPHA | PNG_FORMAT_FLAG_LINEAR), 0U);
  header.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  at::Tensor pixels = at::zeros({header.height, header.width, channels}, at::kByte);
  EXPECT_NE(png_image_finish_read(&header, nullptr, pixels.mutable_data_ptr(), 0, nullptr), 0);
  return pixels.permute({2, 0, 1});
}

TEST(Png, HoldsThePixels) {
  const std::pair<std::int64_t, std::int64_t> sizes[] = {{1, 1}, {2, 3}, {64, 5}, {33, 100}};
  for (const std::int64_t channels : {1, 3}) {
    for (const auto& [height, width] : sizes) {
      const at::Tensor image = at::randint(0, 256, {channels, height, width}, at::kByte);
      EXPECT_TRUE(at::equal(decode(encode_png(image)), image));
      // Whatever order it lies in memory.
      const at::Tensor turned = image.transpose(1, 2);
      EXPECT_TRUE(at::equal(decode(encode_png(turned)), turned));
    }
  }
  const at::Tensor grey = at::randint(0, 256, {4, 7}, at::kByte);
  EXPECT_TRUE(at::equal(decode(encode_png(grey)), grey.unsqueeze(0)));
}

TEST(Png, RefusesWhatIsNoImage) {
  EXPECT_THROW(encode_png(at::zeros({2, 4, 4}, at::kByte)), InternalError);
  EXPECT_THROW(encode_png(at::zeros({4}, at::kByte)), InternalError);
  EXPECT_THROW(encode_png(at::zeros({3, 0, 4}, at::kByte)), InternalError);
  EXPECT_THROW(encode_png(at::zeros({3, 4, 4}, at::kFloat)), InternalError);
  EXPECT_THROW(encode_png(at::Tensor()), InternalError);
}

}  // namespace
}  // namespace sage
