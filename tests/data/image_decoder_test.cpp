#include "data/image_decoder.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "core/error.h"
#include "data/files.h"
#include "data/images.h"

namespace sage {
namespace {

using test::encode_jpeg;
using test::encode_png;
using test::expect_error;
using test::JpegKind;
using test::smooth_pixels;

DecodedImage decode(const std::string& bytes, int reduction = 1) {
  return decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "x.jpg",
                      [&](ImageSize) { return reduction; });
}

int worst_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  int worst = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

std::vector<std::uint8_t> slope(int height, int width, int channels) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) pixels.push_back(static_cast<std::uint8_t>(40 + 2 * y + x + 20 * c));
    }
  }
  return pixels;
}

TEST(DecodeImage, ColourGreyAndProgressiveJpegAreCloseToWhatWasEncoded) {
  const auto pixels = slope(37, 50, 3);
  for (const bool progressive : {false, true}) {
    const DecodedImage image = decode(encode_jpeg(pixels, 37, 50, {.quality = 100, .progressive = progressive}));
    EXPECT_EQ(image.size, (ImageSize{37, 50}));
    EXPECT_LE(worst_difference(image.pixels, pixels), 6);  // chroma is halved
  }
  const auto grey = slope(20, 30, 1);
  const DecodedImage image = decode(encode_jpeg(grey, 20, 30, {.channels = 1, .quality = 100}));
  ASSERT_EQ(image.pixels.size(), 3 * grey.size());
  for (std::size_t i = 0; i < grey.size(); ++i) {
    EXPECT_LE(std::abs(image.pixels[3 * i] - grey[i]), 1);
    EXPECT_EQ(image.pixels[3 * i], image.pixels[3 * i + 1]);
    EXPECT_EQ(image.pixels[3 * i], image.pixels[3 * i + 2]);
  }
}

/// In Adobe's form a value is what is left of the light: red is cyan's times black's.
TEST(DecodeImage, CmykAndYcckBecomeRgb) {
  std::vector<std::uint8_t> cmyk, rgb;
  for (int y = 0; y < 32; ++y) {
    for (int x = 0; x < 40; ++x) {
      const int values[4] = {100 + y, 200 - x, 60 + x, 180 + y};
      for (const int value : values) cmyk.push_back(static_cast<std::uint8_t>(value));
      for (int c = 0; c < 3; ++c) {
        rgb.push_back(static_cast<std::uint8_t>((2 * values[c] * values[3] + 255) / (2 * 255)));
      }
    }
  }
  for (const bool ycck : {false, true}) {
    const DecodedImage image = decode(encode_jpeg(cmyk, 32, 40, {.channels = 4, .quality = 100, .ycck = ycck}));
    EXPECT_LE(worst_difference(image.pixels, rgb), ycck ? 6 : 3) << ycck;
  }
}

/// Where the pixel in the upper left corner, one to its right and one below it go, by the words of the EXIF standard.
TEST(DecodeImage, EveryOrientationIsTurnedUpright) {
  constexpr int height = 16, width = 24;
  std::vector<std::uint8_t> pixels;  // brightness says which quarter: upper left 0, upper right 80, lower left 160, 240
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) pixels.push_back(static_cast<std::uint8_t>(80 * (x >= 12) + 160 * (y >= 8)));
  }
  // Quarters of the upright image: upper left, upper right, lower left, lower right.
  const int expected[9][4] = {{},
                              {0, 80, 160, 240},
                              {80, 0, 240, 160},
                              {240, 160, 80, 0},
                              {160, 240, 0, 80},
                              {0, 160, 80, 240},
                              {160, 0, 240, 80},
                              {240, 80, 160, 0},
                              {80, 240, 0, 160}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string bytes =
        encode_jpeg(pixels, height, width, {.channels = 1, .quality = 100, .orientation = orientation});
    ImageSize seen;
    int reduction = 0;
    const DecodedImage image = decode_image(
        {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "x.jpg",
        [&](ImageSize whole) {
          seen = whole;
          return 2;
        },
        &reduction);
    const bool lies = orientation >= 5;
    EXPECT_EQ(seen, (lies ? ImageSize{width, height} : ImageSize{height, width})) << orientation;
    EXPECT_EQ(reduction, 2);
    ASSERT_EQ(image.size, (lies ? ImageSize{12, 8} : ImageSize{8, 12})) << orientation;
    int place = 0;
    for (const std::int64_t y : {std::int64_t{1}, image.size.height - 2}) {
      for (const std::int64_t x : {std::int64_t{1}, image.size.width - 2}) {
        EXPECT_NEAR(image.pixels[static_cast<std::size_t>(3 * (y * image.size.width + x))],
                    expected[orientation][place], 4)
            << orientation << " quarter " << place;
        ++place;
      }
    }
  }
}

TEST(DecodeImage, AReducedJpegIsTheMeanOfItsPixels) {
  const auto pixels = slope(48, 64, 3);
  const std::string bytes = encode_jpeg(pixels, 48, 64, {.quality = 100});
  for (const int reduction : {2, 4, 8}) {
    const DecodedImage image = decode(bytes, reduction);
    ASSERT_EQ(image.size, (ImageSize{48 / reduction, 64 / reduction}));
    for (std::int64_t y = 0; y < image.size.height; ++y) {
      for (std::int64_t x = 0; x < image.size.width; ++x) {
        const double mean =
            40 + 2 * (static_cast<double>(y) + 0.5) * reduction - 1 + (static_cast<double>(x) + 0.5) * reduction - 0.5;
        EXPECT_NEAR(image.pixels[static_cast<std::size_t>(3 * (y * image.size.width + x))], mean, 5);
      }
    }
  }
  EXPECT_EQ(decode(encode_jpeg(slope(13, 9, 3), 13, 9), 8).size, (ImageSize{2, 2}));  // rounded up
}

TEST(DecodeImage, PngIsExactWhateverItsKind) {
  for (const bool interlaced : {false, true}) {
    const auto rgb = smooth_pixels(21, 34, 3, 1);
    EXPECT_EQ(decode(encode_png(rgb, 21, 34, 3, 8, interlaced)).pixels, rgb);
    EXPECT_EQ(decode(encode_png(rgb, 21, 34, 3, 8, interlaced), 8).size, (ImageSize{21, 34})) << "never reduced";
    std::vector<std::uint8_t> with_alpha, wide, grey = smooth_pixels(21, 34, 1, 2), as_rgb, grey_alpha;
    for (std::size_t i = 0; i < rgb.size(); ++i) {
      with_alpha.push_back(rgb[i]);
      if (i % 3 == 2) with_alpha.push_back(static_cast<std::uint8_t>(i % 256));
      wide.push_back(rgb[i]);
      wide.push_back(static_cast<std::uint8_t>(i * 7 % 256));  // the low byte
    }
    for (const std::uint8_t value : grey) {
      as_rgb.insert(as_rgb.end(), 3, value);
      grey_alpha.insert(grey_alpha.end(), {value, std::uint8_t{7}});
    }
    EXPECT_EQ(decode(encode_png(with_alpha, 21, 34, 4, 8, interlaced)).pixels, rgb);
    EXPECT_EQ(decode(encode_png(wide, 21, 34, 3, 16, interlaced)).pixels, rgb);
    EXPECT_EQ(decode(encode_png(grey, 21, 34, 1, 8, interlaced)).pixels, as_rgb);
    EXPECT_EQ(decode(encode_png(grey_alpha, 21, 34, 2, 8, interlaced)).pixels, as_rgb);
  }
}

TEST(DecodeImage, EveryCutOfAFileIsRefusedOrWhole) {
  const std::string files[] = {test::photo(24, 31, 1),
                               encode_jpeg(smooth_pixels(24, 31, 3, 1), 24, 31, {.progressive = true}),
                               encode_png(smooth_pixels(24, 31, 3, 1), 24, 31, 3)};
  for (const std::string& file : files) {
    const auto whole = decode(file).pixels;
    std::size_t refused = 0;
    for (std::size_t length = 0; length < file.size(); ++length) {
      try {
        // The last bytes only say that the file ends.
        EXPECT_EQ(decode(file.substr(0, length)).pixels, whole) << length;
      } catch (const DataError& error) {
        ++refused;
        EXPECT_NE(std::string(error.what()).find("x.jpg: does not decode"), std::string::npos) << error.what();
      }
    }
    EXPECT_GT(refused, file.size() - 16);
  }
}

TEST(DecodeImage, WhatIsNoImageIsNamed) {
  expect_error<DataError>([] { decode(""); }, {"x.jpg", "empty"});
  expect_error<DataError>([] { decode("GIF89a and more"); }, {"x.jpg", "neither a JPEG nor a PNG"});
  std::string large = test::photo(16, 16, 1);
  const std::size_t header = large.find("\xFF\xC0");
  large.replace(header + 5, 4, "\xFF\xFF\xFF\xFF");  // 65,535 x 65,535 pixels
  expect_error<DataError>([&] { decode(large); }, {"65500"});
  large.replace(header + 5, 4, "\x40\x00\x40\x00", 4);
  expect_error<DataError>([&] { decode(large); }, {"16384 x 16384", "67108864"});
  std::string damaged = encode_png(smooth_pixels(24, 31, 3, 1), 24, 31, 3);
  damaged[damaged.size() / 2] ^= 1;
  expect_error<DataError>([&] { decode(damaged); }, {"x.jpg", "does not decode"});
}

}  // namespace
}  // namespace sage
