#include "data/randaugment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

using Byte = std::uint8_t;
using Table = std::array<Byte, 256>;

struct Image {
  Byte* planes;
  std::int64_t channels, height, width;
  std::int64_t pixels() const { return height * width; }
  std::span<Byte> plane(std::int64_t c) const { return {planes + c * pixels(), static_cast<std::size_t>(pixels())}; }
};

/// Pillow's affine transform with nearest neighbours, in 16.16 fixed point (src/libImaging/Geometry.c): the pixel at
/// (x, y) comes from the one that holds (a x + b y + c, d x + e y + f), both in the middle of the pixel; black outside.
void transform(const Image& image, const std::array<double, 6>& matrix, std::vector<Byte>& scratch) {
  const auto fixed = [](double value) { return static_cast<std::int64_t>(std::floor(value * 65536.0 + 0.5)); };
  const std::int64_t a = fixed(matrix[0]), b = fixed(matrix[1]), d = fixed(matrix[3]), e = fixed(matrix[4]);
  const std::int64_t c = fixed(matrix[2] + matrix[0] * 0.5 + matrix[1] * 0.5);
  const std::int64_t f = fixed(matrix[5] + matrix[3] * 0.5 + matrix[4] * 0.5);
  scratch.assign(image.planes, image.planes + image.channels * image.pixels());
  for (std::int64_t y = 0; y < image.height; ++y) {
    for (std::int64_t x = 0; x < image.width; ++x) {
      const std::int64_t from_x = (c + a * x + b * y) >> 16, from_y = (f + d * x + e * y) >> 16;
      const bool inside = from_x >= 0 && from_x < image.width && from_y >= 0 && from_y < image.height;
      for (std::int64_t k = 0; k < image.channels; ++k) {
        image.planes[k * image.pixels() + y * image.width + x] =
            inside ? scratch[static_cast<std::size_t>(k * image.pixels() + from_y * image.width + from_x)] : Byte{0};
      }
    }
  }
}

/// PIL's Image.rotate: counter-clockwise around the middle, the matrix rounded to 15 digits.
void rotate(const Image& image, double degrees, std::vector<Byte>& scratch) {
  double angle = std::fmod(degrees, 360.0);
  if (angle < 0.0) angle += 360.0;
  const double radians = -angle * std::numbers::pi / 180.0;
  const auto rounded = [](double value) { return std::nearbyint(value * 1e15) / 1e15; };
  std::array<double, 6> matrix = {rounded(std::cos(radians)),  rounded(std::sin(radians)), 0.0,
                                  rounded(-std::sin(radians)), rounded(std::cos(radians)), 0.0};
  const double x = static_cast<double>(image.width) / 2.0, y = static_cast<double>(image.height) / 2.0;
  matrix[2] = matrix[0] * -x + matrix[1] * -y + x;
  matrix[5] = matrix[3] * -x + matrix[4] * -y + y;
  transform(image, matrix, scratch);
}

/// Pillow's Image.blend: from `flat` through `value` and beyond, cut off at the ends.
Byte blend(int flat, int value, float factor) {
  const float mixed = static_cast<float>(flat) + factor * static_cast<float>(value - flat);
  if (factor >= 0.0f && factor <= 1.0f) return static_cast<Byte>(mixed);
  return mixed <= 0.0f ? Byte{0} : mixed >= 255.0f ? Byte{255} : static_cast<Byte>(mixed);
}

/// ITU-R 601-2 in 16-bit fixed point, as PIL's convert("L").
int grey_of(const Image& image, std::int64_t pixel) {
  const Byte* at = image.planes + pixel;
  if (image.channels == 1) return *at;
  const std::int64_t n = image.pixels();
  return (at[0] * 19595 + at[n] * 38470 + at[2 * n] * 7471 + 0x8000) >> 16;
}

void color(const Image& image, float factor) {
  for (std::int64_t i = 0; i < image.pixels(); ++i) {
    const int grey = grey_of(image, i);
    for (std::int64_t c = 0; c < image.channels; ++c) {
      Byte& value = image.planes[c * image.pixels() + i];
      value = blend(grey, value, factor);
    }
  }
}

void contrast(const Image& image, float factor) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < image.pixels(); ++i) sum += grey_of(image, i);
  const int mean = static_cast<int>(static_cast<double>(sum) / static_cast<double>(image.pixels()) + 0.5);
  for (std::int64_t i = 0; i < image.channels * image.pixels(); ++i) {
    image.planes[i] = blend(mean, image.planes[i], factor);
  }
}

/// Away from the image smoothed by the kernel (1 1 1, 1 5 1, 1 1 1) / 13; the border is not smoothed.
void sharpness(const Image& image, float factor, std::vector<Byte>& scratch) {
  for (std::int64_t c = 0; c < image.channels; ++c) {
    const std::span<Byte> plane = image.plane(c);
    scratch.assign(plane.begin(), plane.end());
    for (std::int64_t y = 1; y + 1 < image.height; ++y) {
      for (std::int64_t x = 1; x + 1 < image.width; ++x) {
        const Byte* at = scratch.data() + y * image.width + x;
        const std::int64_t w = image.width;
        const int sum = at[-w - 1] + at[-w] + at[-w + 1] + at[-1] + 5 * at[0] + at[1] + at[w - 1] + at[w] + at[w + 1];
        Byte& value = plane[static_cast<std::size_t>(y * w + x)];
        value = blend((2 * sum + 13) / 26, value, factor);
      }
    }
  }
}

void look_up(std::span<Byte> plane, const Table& table) {
  for (Byte& value : plane) value = table[value];
}

std::array<std::int64_t, 256> histogram_of(std::span<const Byte> plane) {
  std::array<std::int64_t, 256> histogram{};
  for (const Byte value : plane) ++histogram[value];
  return histogram;
}

/// The darkest value to black, the brightest to white, for each channel (PIL's ImageOps.autocontrast).
void auto_contrast(std::span<Byte> plane) {
  const auto [low, high] = std::ranges::minmax(plane);
  if (high <= low) return;
  const double scale = 255.0 / (high - low), offset = -low * scale;
  Table table;
  for (int value = 0; value < 256; ++value) {
    table[static_cast<std::size_t>(value)] =
        static_cast<Byte>(std::clamp(static_cast<int>(value * scale + offset), 0, 255));
  }
  look_up(plane, table);
}

/// A flat histogram, for each channel (PIL's ImageOps.equalize).
void equalize(std::span<Byte> plane) {
  const auto histogram = histogram_of(plane);
  const auto brightest = std::ranges::find_if(histogram.rbegin(), histogram.rend(), [](auto n) { return n > 0; });
  const std::int64_t step = (static_cast<std::int64_t>(plane.size()) - *brightest) / 255;
  if (step == 0) return;
  Table table;
  std::int64_t sum = step / 2;
  for (std::size_t value = 0; value < 256; ++value) {
    table[value] = static_cast<Byte>(std::min<std::int64_t>(255, sum / step));
    sum += histogram[value];
  }
  look_up(plane, table);
}

}  // namespace

std::vector<ImageChange> choose_changes(std::int64_t count, double magnitude, std::uint64_t seed, std::int64_t epoch,
                                        std::int64_t id, ImageSize size) {
  RandomStream stream(seed, "randaugment", static_cast<std::uint64_t>(id), static_cast<std::uint32_t>(epoch));
  const double part = magnitude / 30.0;
  std::vector<ImageChange> changes;
  for (std::int64_t i = 0; i < count; ++i) {
    ImageChange change{static_cast<ImageOperation>(stream.below(image_operation_count)), 0.0};
    const bool backwards = stream.below(2) == 1;
    const double sign = backwards ? -1.0 : 1.0;
    switch (change.operation) {
      case ImageOperation::shear_x:
      case ImageOperation::shear_y:
        change.strength = sign * 0.3 * part;
        break;
      case ImageOperation::translate_x:
        change.strength = sign * std::floor(150.0 / 331.0 * static_cast<double>(size.width) * part);
        break;
      case ImageOperation::translate_y:
        change.strength = sign * std::floor(150.0 / 331.0 * static_cast<double>(size.height) * part);
        break;
      case ImageOperation::rotate:
        change.strength = sign * 30.0 * part;
        break;
      case ImageOperation::brightness:
      case ImageOperation::color:
      case ImageOperation::contrast:
      case ImageOperation::sharpness:
        change.strength = sign * 0.9 * part;
        break;
      case ImageOperation::posterize:
        change.strength = 8.0 - std::nearbyint(4.0 * part);
        break;
      case ImageOperation::solarize:
        change.strength = 255.0 * (1.0 - part);
        break;
      case ImageOperation::identity:
      case ImageOperation::auto_contrast:
      case ImageOperation::equalize:
        break;
    }
    changes.push_back(change);
  }
  return changes;
}

void apply_change(const ImageChange& change, std::uint8_t* planes, std::int64_t channels, ImageSize size,
                  std::vector<std::uint8_t>& scratch) {
  require(channels == 1 || channels == 3, "apply_change: neither one channel nor three");
  const Image image{planes, channels, size.height, size.width};
  const double strength = change.strength;
  const auto factor = static_cast<float>(1.0 + strength);
  const auto each_plane = [&](auto&& work) {
    for (std::int64_t c = 0; c < channels; ++c) work(image.plane(c));
  };
  switch (change.operation) {
    case ImageOperation::identity:
      return;
    case ImageOperation::shear_x:
      return transform(image, {1.0, strength, 0.0, 0.0, 1.0, 0.0}, scratch);
    case ImageOperation::shear_y:
      return transform(image, {1.0, 0.0, 0.0, strength, 1.0, 0.0}, scratch);
    case ImageOperation::translate_x:
      return transform(image, {1.0, 0.0, -strength, 0.0, 1.0, 0.0}, scratch);
    case ImageOperation::translate_y:
      return transform(image, {1.0, 0.0, 0.0, 0.0, 1.0, -strength}, scratch);
    case ImageOperation::rotate:
      return rotate(image, strength, scratch);
    case ImageOperation::brightness:
      for (std::int64_t i = 0; i < channels * image.pixels(); ++i) planes[i] = blend(0, planes[i], factor);
      return;
    case ImageOperation::color:
      return color(image, factor);
    case ImageOperation::contrast:
      return contrast(image, factor);
    case ImageOperation::sharpness:
      return sharpness(image, factor, scratch);
    case ImageOperation::posterize: {
      const auto mask = static_cast<Byte>(0xFF << (8 - static_cast<int>(strength)));
      return each_plane([&](std::span<Byte> plane) {
        for (Byte& value : plane) value &= mask;
      });
    }
    case ImageOperation::solarize:
      return each_plane([&](std::span<Byte> plane) {
        for (Byte& value : plane) value = value < strength ? value : static_cast<Byte>(255 - value);
      });
    case ImageOperation::auto_contrast:
      return each_plane(auto_contrast);
    case ImageOperation::equalize:
      return each_plane(equalize);
  }
}

}  // namespace sage
