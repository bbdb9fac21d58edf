#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

constexpr int precision_bits = 22;

/// For each place of the result, the places of the source that it is made of.
struct Weights {
  std::vector<std::int64_t> first, count;
  std::vector<std::int32_t> values;  // `most` for each place
  std::int64_t most = 0;
};

/// Pillow's precompute_coeffs and normalize_coeffs_8bpc (src/libImaging/Resample.c).
Weights weights_of(std::int64_t source, std::int64_t target, std::int64_t begin, std::int64_t count) {
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double filter_scale = std::max(scale, 1.0), support = filter_scale;
  Weights weights;
  weights.most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
  weights.values.resize(static_cast<std::size_t>(count * weights.most));
  std::vector<double> exact(static_cast<std::size_t>(weights.most));
  for (std::int64_t i = 0; i < count; ++i) {
    const double centre = (static_cast<double>(begin + i) + 0.5) * scale;
    const auto low = std::max<std::int64_t>(0, static_cast<std::int64_t>(centre - support + 0.5));
    const auto high = std::min<std::int64_t>(source, static_cast<std::int64_t>(centre + support + 0.5));
    double sum = 0.0;
    for (std::int64_t place = low; place < high; ++place) {
      const double distance = std::abs((static_cast<double>(place) - centre + 0.5) * (1.0 / filter_scale));
      const double weight = distance < 1.0 ? 1.0 - distance : 0.0;
      exact[static_cast<std::size_t>(place - low)] = weight;
      sum += weight;
    }
    for (std::int64_t k = 0; k < high - low; ++k) {
      const double weight = sum != 0.0 ? exact[static_cast<std::size_t>(k)] / sum : exact[static_cast<std::size_t>(k)];
      weights.values[static_cast<std::size_t>(i * weights.most + k)] =
          static_cast<std::int32_t>(0.5 + weight * (1 << precision_bits));
    }
    weights.first.push_back(low);
    weights.count.push_back(high - low);
  }
  return weights;
}

std::uint8_t to_byte(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> precision_bits, 0, 255)); }

/// One row, left and right. Sums stay below 2^31: weights add up to 2^22, values are below 2^8.
template <int Channels>
void resize_row(const std::uint8_t* source, const Weights& weights, std::uint8_t* target) {
  for (std::size_t x = 0; x < weights.first.size(); ++x) {
    const std::uint8_t* from = source + weights.first[x] * Channels;
    const std::int32_t* weight = weights.values.data() + static_cast<std::int64_t>(x) * weights.most;
    std::int32_t sums[Channels];
    std::fill_n(sums, Channels, 1 << (precision_bits - 1));
    for (std::int64_t k = 0; k < weights.count[x]; ++k, from += Channels) {
      for (int c = 0; c < Channels; ++c) sums[c] += from[c] * weight[k];
    }
    for (int c = 0; c < Channels; ++c) *target++ = to_byte(sums[c]);
  }
}

}  // namespace

void resize_bilinear(const PixelView& source, const PixelBox& box, std::int64_t height, std::int64_t width,
                     const PixelBox& window, std::uint8_t* target) {
  require(box.y >= 0 && box.x >= 0 && box.height >= 1 && box.width >= 1 && box.y + box.height <= source.height &&
              box.x + box.width <= source.width,
          "resize_bilinear: a box outside of the image");
  require(window.height >= 1 && window.width >= 1 && window.y >= 0 && window.x >= 0 &&
              window.y + window.height <= height && window.x + window.width <= width,
          "resize_bilinear: a window outside of the result");
  require(source.channels == 1 || source.channels == 3, "resize_bilinear: neither one channel nor three");
  const Weights across = weights_of(box.width, width, window.x, window.width);
  const Weights down = weights_of(box.height, height, window.y, window.height);
  const std::int64_t row_bytes = window.width * source.channels;
  // Only the rows that the result is made of.
  const std::int64_t first = down.first.front(), last = down.first.back() + down.count.back();
  std::vector<std::uint8_t> rows(static_cast<std::size_t>((last - first) * row_bytes));
  for (std::int64_t y = first; y < last; ++y) {
    const std::uint8_t* from = source.pixels + ((box.y + y) * source.width + box.x) * source.channels;
    std::uint8_t* to = rows.data() + (y - first) * row_bytes;
    if (width == box.width) {
      std::memcpy(to, from + window.x * source.channels, static_cast<std::size_t>(row_bytes));
    } else if (source.channels == 3) {
      resize_row<3>(from, across, to);
    } else {
      resize_row<1>(from, across, to);
    }
  }
  std::vector<std::int32_t> sums(static_cast<std::size_t>(row_bytes));
  for (std::int64_t y = 0; y < window.height; ++y, target += row_bytes) {
    const auto place = static_cast<std::size_t>(y);
    const std::uint8_t* from = rows.data() + (down.first[place] - first) * row_bytes;
    std::ranges::fill(sums, 1 << (precision_bits - 1));
    for (std::int64_t k = 0; k < down.count[place]; ++k, from += row_bytes) {
      const std::int32_t weight = down.values[static_cast<std::size_t>(y * down.most + k)];
      for (std::int64_t i = 0; i < row_bytes; ++i) sums[static_cast<std::size_t>(i)] += from[i] * weight;
    }
    for (std::int64_t i = 0; i < row_bytes; ++i) target[i] = to_byte(sums[static_cast<std::size_t>(i)]);
  }
}

}  // namespace sage
