// Small JPEG and PNG images for the tests of data/, of every kind that the decoder knows.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <jpeglib.h>  // after <cstdio>

#include <png.h>

namespace sage::test {

/// Smooth colours, different for each `seed`: [height, width, channels].
inline std::vector<std::uint8_t> smooth_pixels(int height, int width, int channels, int seed) {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        pixels.push_back(static_cast<std::uint8_t>((y * (3 + c) + x * (2 + seed % 5) + 40 * c + 23 * seed) / 2 % 256));
      }
    }
  }
  return pixels;
}

struct JpegKind {
  int channels = 3;  // 1 grey, 3 YCbCr, 4 CMYK as Adobe writes it
  int quality = 95;
  bool progressive = false;
  bool ycck = false;    // of 4 channels
  int orientation = 0;  // EXIF; 0: none
};

inline std::string encode_jpeg(const std::vector<std::uint8_t>& pixels, int height, int width,
                               const JpegKind& kind = {}) {
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &memory, &size);
  state.image_height = static_cast<JDIMENSION>(height);
  state.image_width = static_cast<JDIMENSION>(width);
  state.input_components = kind.channels;
  state.in_color_space = kind.channels == 1 ? JCS_GRAYSCALE : kind.channels == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&state);
  if (kind.ycck) jpeg_set_colorspace(&state, JCS_YCCK);
  if (kind.channels == 4) state.write_Adobe_marker = TRUE;
  jpeg_set_quality(&state, kind.quality, TRUE);
  if (kind.progressive) jpeg_simple_progression(&state);
  jpeg_start_compress(&state, TRUE);
  if (kind.orientation > 0) {
    const std::string tiff("MM\0*\0\0\0\x8\0\x1\x1\x12\0\x3\0\0\0\x1\0", 19);
    std::vector<JOCTET> exif = {'E', 'x', 'i', 'f', 0, 0};
    exif.insert(exif.end(), tiff.begin(), tiff.end());
    exif.push_back(static_cast<JOCTET>(kind.orientation));
    exif.resize(exif.size() + 6);
    jpeg_write_marker(&state, JPEG_APP0 + 1, exif.data(), static_cast<unsigned>(exif.size()));
  }
  while (state.next_scanline < state.image_height) {
    auto* row = const_cast<JSAMPROW>(pixels.data()) +
                static_cast<std::size_t>(state.next_scanline) * static_cast<std::size_t>(width * kind.channels);
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  const std::string bytes(reinterpret_cast<const char*>(memory), size);
  jpeg_destroy_compress(&state);
  std::free(memory);
  return bytes;
}

/// `channels`: 1 grey, 2 grey and alpha, 3, 4. `depth` 8 or 16 (big-endian pairs in `pixels`).
inline std::string encode_png(const std::vector<std::uint8_t>& pixels, int height, int width, int channels,
                              int depth = 8, bool interlaced = false) {
  std::string bytes;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &bytes,
      [](png_structp self, png_bytep data, png_size_t count) {
        static_cast<std::string*>(png_get_io_ptr(self))->append(reinterpret_cast<const char*>(data), count);
      },
      nullptr);
  const int types[] = {PNG_COLOR_TYPE_GRAY, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), depth, types[channels - 1],
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  std::vector<png_bytep> rows;
  for (int y = 0; y < height; ++y) {
    rows.push_back(const_cast<png_bytep>(pixels.data()) +
                   static_cast<std::ptrdiff_t>(y) * width * channels * depth / 8);
  }
  png_write_image(png, rows.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return bytes;
}

inline std::string photo(int height, int width, int seed) {
  return encode_jpeg(smooth_pixels(height, width, 3, seed), height, width);
}

}  // namespace sage::test
