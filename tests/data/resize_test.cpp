#include "data/resize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

std::vector<std::uint8_t> noise(std::int64_t count) {
  RandomStream stream(4, "noise");
  std::vector<std::uint8_t> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<std::uint8_t>(stream() & 255));
  return values;
}

/// The filter as an integral would have it: a triangle around the middle of the pixel, in doubles, without rounding.
double filtered(const std::vector<double>& line, double scale, std::int64_t place) {
  const double reach = std::max(1.0, scale), centre = (static_cast<double>(place) + 0.5) * scale;
  double sum = 0.0, weights = 0.0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const double weight = std::max(0.0, 1.0 - std::abs(static_cast<double>(i) + 0.5 - centre) / reach);
    sum += weight * line[i];
    weights += weight;
  }
  return sum / weights;
}

TEST(ResizeBilinear, EqualsTheTriangleFilterInDoubles) {
  struct Case {
    std::int64_t height, width, channels;
    PixelBox box;
    std::int64_t to_height, to_width;
  };
  for (const Case& c : {Case{20, 30, 3, {0, 0, 20, 30}, 7, 11}, Case{20, 30, 3, {3, 5, 10, 13}, 25, 31},
                        Case{9, 9, 1, {0, 0, 9, 9}, 9, 4}, Case{33, 17, 1, {32, 16, 1, 1}, 5, 5},
                        Case{50, 40, 3, {1, 2, 48, 37}, 8, 37}}) {
    const auto pixels = noise(c.height * c.width * c.channels);
    std::vector<std::uint8_t> result(static_cast<std::size_t>(c.to_height * c.to_width * c.channels));
    resize_bilinear({pixels.data(), c.height, c.width, c.channels}, c.box, c.to_height, c.to_width,
                    {0, 0, c.to_height, c.to_width}, result.data());
    const double across = static_cast<double>(c.box.width) / static_cast<double>(c.to_width);
    const double down = static_cast<double>(c.box.height) / static_cast<double>(c.to_height);
    for (std::int64_t channel = 0; channel < c.channels; ++channel) {
      for (std::int64_t x = 0; x < c.to_width; ++x) {
        std::vector<double> column;
        for (std::int64_t y = 0; y < c.box.height; ++y) {
          std::vector<double> row;
          for (std::int64_t i = 0; i < c.box.width; ++i) {
            row.push_back(
                pixels[static_cast<std::size_t>(((c.box.y + y) * c.width + c.box.x + i) * c.channels + channel)]);
          }
          column.push_back(filtered(row, across, x));
        }
        for (std::int64_t y = 0; y < c.to_height; ++y) {
          // Each of the two directions rounds by at most a half.
          EXPECT_NEAR(result[static_cast<std::size_t>((y * c.to_width + x) * c.channels + channel)],
                      filtered(column, down, y), 1.01);
        }
      }
    }
  }
}

TEST(ResizeBilinear, AWindowIsAPartOfTheWhole) {
  const auto pixels = noise(31 * 43 * 3);
  const PixelView view{pixels.data(), 31, 43, 3};
  const PixelBox all{0, 0, 31, 43}, window{4, 6, 9, 7};
  std::vector<std::uint8_t> whole(20 * 25 * 3), part(9 * 7 * 3);
  resize_bilinear(view, all, 20, 25, {0, 0, 20, 25}, whole.data());
  resize_bilinear(view, all, 20, 25, window, part.data());
  for (std::int64_t y = 0; y < 9; ++y) {
    const auto* from = whole.data() + ((4 + y) * 25 + 6) * 3;
    EXPECT_TRUE(std::equal(from, from + 7 * 3, part.data() + y * 7 * 3)) << y;
  }
}

TEST(ResizeBilinear, TheSameSizeIsTheSameImageAndAFlatImageStaysFlat) {
  const auto pixels = noise(12 * 9 * 3);
  std::vector<std::uint8_t> same(pixels.size());
  resize_bilinear({pixels.data(), 12, 9, 3}, {0, 0, 12, 9}, 12, 9, {0, 0, 12, 9}, same.data());
  EXPECT_EQ(same, pixels);
  const std::vector<std::uint8_t> flat(40 * 40, 201);
  std::vector<std::uint8_t> smaller(7 * 13);
  resize_bilinear({flat.data(), 40, 40, 1}, {0, 0, 40, 40}, 7, 13, {0, 0, 7, 13}, smaller.data());
  EXPECT_TRUE(std::ranges::all_of(smaller, [](int value) { return value == 201; }));
}

TEST(ResizeBilinear, RefusesABoxOutsideOfTheImage) {
  const auto pixels = noise(9);
  std::uint8_t target[9];
  for (const PixelBox& box : {PixelBox{0, 0, 4, 3}, PixelBox{-1, 0, 2, 2}, PixelBox{0, 0, 0, 3}}) {
    EXPECT_THROW(resize_bilinear({pixels.data(), 3, 3, 1}, box, 3, 3, {0, 0, 3, 3}, target), InternalError);
  }
}

}  // namespace
}  // namespace sage
