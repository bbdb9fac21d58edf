#include "data/image_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include <jpeglib.h>  // after <cstdio>, whose FILE it uses

#include <jerror.h>
#include <png.h>

#include "core/error.h"

// Both libraries report errors by a jump out of their own code. Each function below that calls them holds nothing but
// plain values where it could be left by such a jump, and none that was changed since the place it goes back to.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wclobbered"
#endif

namespace sage {
namespace {

using Bytes = std::span<const std::uint8_t>;

[[noreturn]] void refuse(const std::string& name, const char* why) {
  throw DataError(fmt::format("{}: does not decode: {}", name, why));
}

void check_size(const std::string& name, ImageSize size) {
  if (size.height < 1 || size.width < 1 || size.height > most_image_pixels / size.width) {
    throw DataError(fmt::format("{}: does not decode: {} x {} pixels, where at most {} in all are read", name,
                                size.height, size.width, most_image_pixels));
  }
}

/// The value of tag 0x0112 of the first directory of TIFF data, 1 to 8; 1 where there is none or it makes no sense.
int exif_orientation(Bytes tiff) {
  if (tiff.size() < 8) return 1;
  const bool little = tiff[0] == 'I';
  if (tiff[0] != tiff[1] || (tiff[0] != 'I' && tiff[0] != 'M')) return 1;
  const auto number = [&](std::size_t at, std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i) value |= std::uint32_t{tiff[at + i]} << 8 * (little ? i : count - 1 - i);
    return value;
  };
  const std::size_t directory = number(4, 4);
  if (number(2, 2) != 42 || directory > tiff.size() - 2) return 1;
  const std::size_t entries = number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.size()) return 1;
    if (number(entry, 2) != 0x0112) continue;
    const std::uint32_t value = number(entry + 8, 2);
    return number(entry + 2, 2) == 3 && value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

/// Orientations 5 to 8 lay the image on its side.
ImageSize upright(ImageSize stored, int orientation) {
  return orientation >= 5 ? ImageSize{stored.width, stored.height} : stored;
}

/// Pixel (y, x) of the upright image comes from row and column:
///   1 y, x        2 y, W-1-x      3 H-1-y, W-1-x   4 H-1-y, x
///   5 x, y        6 H-1-x, y      7 H-1-x, W-1-y   8 x, W-1-y        (H, W: as stored)
DecodedImage turn_upright(DecodedImage stored, int orientation) {
  if (orientation == 1) return stored;
  const auto [height, width] = stored.size;
  DecodedImage turned{upright(stored.size, orientation), std::vector<std::uint8_t>(stored.pixels.size())};
  const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  std::uint8_t* to = turned.pixels.data();
  for (std::int64_t y = 0; y < turned.size.height; ++y) {
    for (std::int64_t x = 0; x < turned.size.width; ++x, to += 3) {
      std::int64_t row = orientation >= 5 ? x : y, column = orientation >= 5 ? y : x;
      if (from_below) row = height - 1 - row;
      if (from_right) column = width - 1 - column;
      std::memcpy(to, stored.pixels.data() + 3 * (row * width + column), 3);
    }
  }
  return turned;
}

// ---- JPEG
// ------------------------------------------------------------------------------------------------------------

struct JpegErrors {
  jpeg_error_mgr manager;  // first: libjpeg hands out a pointer to it
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_failed(j_common_ptr state) {
  auto* errors = reinterpret_cast<JpegErrors*>(state->err);
  state->err->format_message(state, errors->message);
  std::longjmp(errors->jump, 1);
}

/// Warnings that say that pixels are made up are errors; others (bytes between segments, odd markers) are found in many
/// photos and change nothing.
void jpeg_warned(j_common_ptr state, int level) {
  if (level >= 0) return;
  switch (state->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      jpeg_failed(state);
    default:
      break;
  }
}

/// A progressive file can ask for any number of passes over all of its coefficients.
void jpeg_passed(j_common_ptr state) {
  constexpr int most_scans = 100;
  if (state->is_decompressor != 0 && reinterpret_cast<j_decompress_ptr>(state)->input_scan_number > most_scans) {
    auto* errors = reinterpret_cast<JpegErrors*>(state->err);
    std::strcpy(errors->message, "more than 100 scans");
    std::longjmp(errors->jump, 1);
  }
}

class JpegReader {
 public:
  JpegReader(Bytes bytes, const std::string& name) : name_(name) {
    state_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = jpeg_failed;
    errors_.manager.emit_message = jpeg_warned;
    if (setjmp(errors_.jump) != 0) fail();
    jpeg_create_decompress(&state_);
    progress_.progress_monitor = jpeg_passed;
    state_.progress = &progress_;
    jpeg_mem_src(&state_, bytes.data(), bytes.size());
    jpeg_save_markers(&state_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&state_, TRUE);
  }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;
  ~JpegReader() { jpeg_destroy_decompress(&state_); }

  ImageSize size() const { return {state_.image_height, state_.image_width}; }
  int orientation() const {
    for (auto* marker = state_.marker_list; marker != nullptr; marker = marker->next) {
      constexpr std::size_t prefix = 6;
      if (marker->data_length > prefix && std::memcmp(marker->data, "Exif\0\0", prefix) == 0) {
        return exif_orientation({marker->data + prefix, marker->data_length - prefix});
      }
    }
    return 1;
  }
  /// Size of what read() gives.
  ImageSize start(int reduction) {
    if (setjmp(errors_.jump) != 0) fail();
    state_.scale_num = 1;
    state_.scale_denom = static_cast<unsigned>(reduction);
    state_.out_color_space = state_.num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&state_);
    return {state_.output_height, state_.output_width};
  }
  /// `pixels`: [height, width, 3]; `row`: [width, 4], used for CMYK.
  void read(std::uint8_t* pixels, std::uint8_t* row) {
    if (setjmp(errors_.jump) != 0) fail();
    const bool cmyk = state_.out_color_space == JCS_CMYK;
    while (state_.output_scanline < state_.output_height) {
      std::uint8_t* target = pixels + std::size_t{3} * state_.output_scanline * state_.output_width;
      JSAMPROW into = cmyk ? row : target;
      if (jpeg_read_scanlines(&state_, &into, 1) == 1 && cmyk) to_rgb(row, target);
    }
  }

 private:
  /// Adobe's CMYK holds 255 - ink: each colour is its own value times that of black.
  void to_rgb(const std::uint8_t* cmyk, std::uint8_t* rgb) const {
    for (unsigned x = 0; x < state_.output_width; ++x, cmyk += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) {
        const unsigned product = unsigned{cmyk[c]} * cmyk[3] + 128;
        rgb[c] = static_cast<std::uint8_t>(((product >> 8) + product) >> 8);  // product / 255, rounded
      }
    }
  }
  [[noreturn]] void fail() {
    const std::string message = errors_.message;
    jpeg_destroy_decompress(&state_);  // again in the destructor, where that runs: it may be repeated
    refuse(name_, message.c_str());
  }

  const std::string& name_;
  JpegErrors errors_{};
  jpeg_progress_mgr progress_{};
  jpeg_decompress_struct state_{};
};

DecodedImage decode_jpeg(Bytes bytes, const std::string& name, const ChooseReduction& choose, int* reduction) {
  JpegReader reader(bytes, name);
  check_size(name, reader.size());
  const int orientation = reader.orientation();
  const int divisor = choose ? choose(upright(reader.size(), orientation)) : 1;
  require(divisor == 1 || divisor == 2 || divisor == 4 || divisor == 8, "decode_image: a reduction that there is not");
  if (reduction != nullptr) *reduction = divisor;
  DecodedImage image{reader.start(divisor), {}};
  image.pixels.resize(static_cast<std::size_t>(3 * image.size.height * image.size.width));
  std::vector<std::uint8_t> row(static_cast<std::size_t>(4 * image.size.width));
  reader.read(image.pixels.data(), row.data());
  return turn_upright(std::move(image), orientation);
}

// ---- PNG
// -------------------------------------------------------------------------------------------------------------

class PngReader {
 public:
  PngReader(Bytes bytes, const std::string& name) : left_(bytes), name_(name) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, failed, [](png_structp, png_const_charp) {});
    info_ = png_ != nullptr ? png_create_info_struct(png_) : nullptr;
    if (info_ == nullptr) {
      std::strcpy(message_, "no memory for libpng");
      fail();
    }
    if (setjmp(jump_) != 0) fail();
    constexpr png_alloc_size_t largest_chunk = 8 << 20;
    png_set_user_limits(png_, 65535, 65535);
    png_set_chunk_malloc_max(png_, largest_chunk);
    png_set_chunk_cache_max(png_, 128);
    png_set_read_fn(png_, this, read_bytes);
    png_read_info(png_, info_);
  }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

  ImageSize size() const { return {png_get_image_height(png_, info_), png_get_image_width(png_, info_)}; }
  int orientation() const {
    png_uint_32 count = 0;
    png_bytep exif = nullptr;
    return png_get_eXIf_1(png_, info_, &count, &exif) != 0 ? exif_orientation({exif, count}) : 1;
  }
  /// `rows`: pointers to rows of [width, 3].
  void read(png_bytepp rows) {
    if (setjmp(jump_) != 0) fail();
    png_set_expand(png_);  // palettes, and grey of less than 8 bits
    png_set_strip_16(png_);
    png_set_gray_to_rgb(png_);
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != png_size_t{3} * png_get_image_width(png_, info_)) {
      png_error(png_, "a kind of pixels that is not known");
    }
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
  }

 private:
  static PngReader& self(png_structp png) { return *static_cast<PngReader*>(png_get_error_ptr(png)); }
  [[noreturn]] static void failed(png_structp png, png_const_charp message) {
    PngReader& reader = self(png);
    std::snprintf(reader.message_, sizeof(reader.message_), "%s", message);
    std::longjmp(reader.jump_, 1);
  }
  static void read_bytes(png_structp png, png_bytep target, png_size_t count) {
    PngReader& reader = self(png);
    if (count > reader.left_.size()) png_error(png, "the file is cut short");
    std::memcpy(target, reader.left_.data(), count);
    reader.left_ = reader.left_.subspan(count);
  }
  [[noreturn]] void fail() {
    png_destroy_read_struct(&png_, &info_, nullptr);
    refuse(name_, message_);
  }

  Bytes left_;
  const std::string& name_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf jump_;
  char message_[200] = {};
};

DecodedImage decode_png(Bytes bytes, const std::string& name, int* reduction) {
  PngReader reader(bytes, name);
  check_size(name, reader.size());
  if (reduction != nullptr) *reduction = 1;
  DecodedImage image{reader.size(), {}};
  image.pixels.resize(static_cast<std::size_t>(3 * image.size.height * image.size.width));
  std::vector<png_bytep> rows(static_cast<std::size_t>(image.size.height));
  for (std::size_t y = 0; y < rows.size(); ++y) {
    rows[y] = image.pixels.data() + 3 * y * static_cast<std::size_t>(image.size.width);
  }
  reader.read(rows.data());
  return turn_upright(std::move(image), reader.orientation());
}

}  // namespace

DecodedImage decode_image(Bytes bytes, const std::string& name, const ChooseReduction& choose, int* reduction) {
  constexpr std::array<std::uint8_t, 3> jpeg = {0xFF, 0xD8, 0xFF};
  constexpr std::array<std::uint8_t, 8> png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  const auto begins_with = [&](auto signature) {
    return bytes.size() >= signature.size() && std::equal(signature.begin(), signature.end(), bytes.begin());
  };
  if (begins_with(jpeg)) return decode_jpeg(bytes, name, choose, reduction);
  if (begins_with(png)) return decode_png(bytes, name, reduction);
  refuse(name, bytes.empty() ? "the file is empty" : "its first bytes are those of neither a JPEG nor a PNG image");
}

}  // namespace sage
