#include "data/augment.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

at::Tensor random_images(std::int64_t count, std::int64_t channels, std::int64_t height, std::int64_t width) {
  at::Tensor images = at::empty({count, channels, height, width}, at::kByte);
  RandomStream stream(3, "test_images");
  auto* bytes = images.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < images.numel(); ++i) bytes[i] = static_cast<std::uint8_t>(stream() & 255);
  return images;
}

/// The slow way: builds the padded image, cuts, then flips, all with plain indices.
float expected_value(const at::Tensor& images, std::int64_t id, const AugmentChoice& choice, std::int64_t crop,
                     float mean, float deviation, std::int64_t c, std::int64_t y, std::int64_t x) {
  const std::int64_t height = images.size(2), width = images.size(3);
  const auto* plane = images.const_data_ptr<std::uint8_t>() + (id * images.size(1) + c) * height * width;
  std::vector<std::vector<int>> padded(static_cast<std::size_t>(height + 2 * crop),
                                       std::vector<int>(static_cast<std::size_t>(width + 2 * crop)));
  for (std::int64_t py = 0; py < height + 2 * crop; ++py) {
    for (std::int64_t px = 0; px < width + 2 * crop; ++px) {
      std::int64_t sy = std::abs(py - crop), sx = std::abs(px - crop);
      if (sy > height - 1) sy = (height - 1) - (sy - (height - 1));
      if (sx > width - 1) sx = (width - 1) - (sx - (width - 1));
      padded[static_cast<std::size_t>(py)][static_cast<std::size_t>(px)] = plane[sy * width + sx];
    }
  }
  const std::int64_t column = choice.flip ? width - 1 - x : x;  // the crop is mirrored
  const int value = padded[static_cast<std::size_t>(crop + choice.shift_y + y)]
                          [static_cast<std::size_t>(crop + choice.shift_x + column)];
  return (static_cast<float>(value) / 255.0f - mean) / deviation;
}

struct Case {
  std::int64_t channels, height, width, crop;
  bool flip;
};

TEST(PrepareImages, EqualsThePixelByPixelOracle) {
  for (const Case& c : {Case{3, 8, 8, 2, true}, Case{1, 7, 9, 6, true}, Case{3, 5, 4, 0, true}, Case{2, 6, 6, 3, false},
                        Case{1, 8, 8, 0, false}}) {
    const at::Tensor images = random_images(12, c.channels, c.height, c.width);
    std::vector<float> mean, deviation;
    for (std::int64_t k = 0; k < c.channels; ++k) {
      mean.push_back(0.4f + 0.05f * static_cast<float>(k));
      deviation.push_back(0.2f + 0.03f * static_cast<float>(k));
    }
    const Normalization normalization(mean, deviation);
    const std::vector<std::int64_t> ids = {11, 0, 5, 5, 7, 1, 2, 3};
    const AugmentOptions options{c.crop, c.flip};
    std::vector<AugmentChoice> choices;
    for (const std::int64_t id : ids) {
      choices.push_back(choose_augmentation({options, 1, 2}, id, {c.height, c.width}));
    }
    if (!c.flip && c.crop == 0) choices.clear();
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      for (const bool parallel : {false, true}) {
        at::Tensor output = at::empty({static_cast<std::int64_t>(ids.size()), c.channels, c.height, c.width},
                                      at::TensorOptions(at::kFloat).memory_format(format));
        prepare_images(images, ids, choices, normalization, output, parallel);
        EXPECT_TRUE(output.is_contiguous(format));
        const at::Tensor plain = output.contiguous();
        const float* values = plain.const_data_ptr<float>();
        for (std::size_t i = 0; i < ids.size(); ++i) {
          const AugmentChoice choice = choices.empty() ? AugmentChoice{} : choices[i];
          for (std::int64_t k = 0; k < c.channels; ++k) {
            for (std::int64_t y = 0; y < c.height; ++y) {
              for (std::int64_t x = 0; x < c.width; ++x) {
                const auto channel = static_cast<std::size_t>(k);
                ASSERT_EQ(*values++,
                          expected_value(images, ids[i], choice, c.crop, mean[channel], deviation[channel], k, y, x))
                    << "example " << i << " channel " << k << " at " << y << ", " << x;
              }
            }
          }
        }
      }
    }
  }
}

TEST(PrepareImages, RefusesAnIdOutOfRange) {
  const at::Tensor images = random_images(4, 1, 3, 3);
  const std::vector<float> ones = {1.0f};
  at::Tensor output = at::empty({1, 1, 3, 3});
  for (const std::int64_t id : {-1, 4}) {
    const std::vector<std::int64_t> ids = {id};
    EXPECT_THROW(prepare_images(images, ids, {}, Normalization(ones, ones), output, false), InternalError);
  }
}

TEST(AugmentChoice, IsUniformAndDependsOnSeedEpochAndIdOnly) {
  const AugmentOptions options{2, true};
  std::map<int, int> rows, columns, flips;
  constexpr int count = 10000;
  int same_next_epoch = 0, same_other_seed = 0;
  for (std::int64_t id = 0; id < count; ++id) {
    const AugmentChoice choice = choose_augmentation({options, 1, 1}, id, {8, 8});
    ++rows[choice.shift_y], ++columns[choice.shift_x], ++flips[choice.flip];
    const auto equal = [&](const AugmentChoice& other) {
      return other.shift_y == choice.shift_y && other.shift_x == choice.shift_x && other.flip == choice.flip;
    };
    EXPECT_TRUE(equal(choose_augmentation({options, 1, 1}, id, {8, 8})));
    same_next_epoch += equal(choose_augmentation({options, 1, 2}, id, {8, 8}));
    same_other_seed += equal(choose_augmentation({options, 2, 1}, id, {8, 8}));
  }
  ASSERT_EQ(rows.size(), 5u);
  ASSERT_EQ(columns.size(), 5u);
  ASSERT_EQ(flips.size(), 2u);
  EXPECT_EQ(rows.begin()->first, -2);
  // Five standard deviations: sqrt(n p (1 - p)) is 40 for p = 1/5, 50 for 1/2 and 14 for 1/50.
  for (const auto& [shift, times] : rows) EXPECT_NEAR(times, count / 5, 200) << shift;
  for (const auto& [shift, times] : columns) EXPECT_NEAR(times, count / 5, 200) << shift;
  for (const auto& [flip, times] : flips) EXPECT_NEAR(times, count / 2, 250) << flip;
  EXPECT_NEAR(same_next_epoch, count / 50, 70);
  EXPECT_NEAR(same_other_seed, count / 50, 70);
}

TEST(Erasing, RectanglesHaveTheirAreaAspectAndProbability) {
  AugmentOptions options;
  options.erasing = 0.4;
  constexpr std::int64_t height = 40, width = 60, count = 4000;
  int erased = 0;
  double middle_y = 0.0, middle_x = 0.0;
  for (std::int64_t id = 0; id < count; ++id) {
    const AugmentChoice choice = choose_augmentation({options, 1, 1}, id, {height, width});
    if (choice.erase_height == 0) continue;
    ++erased;
    EXPECT_GE(choice.erase_y, 0);
    EXPECT_GE(choice.erase_x, 0);
    EXPECT_LE(choice.erase_y + choice.erase_height, height);
    EXPECT_LE(choice.erase_x + choice.erase_width, width);
    const double area = static_cast<double>(choice.erase_height) * choice.erase_width / (height * width);
    EXPECT_GT(area, 0.01);  // 2 to 33 %, each side rounded
    EXPECT_LT(area, 0.36);
    const double aspect = static_cast<double>(choice.erase_width) / choice.erase_height;
    EXPECT_GT(aspect, 0.2);
    EXPECT_LT(aspect, 4.0);
    middle_y += choice.erase_y + choice.erase_height / 2.0;
    middle_x += choice.erase_x + choice.erase_width / 2.0;
  }
  EXPECT_NEAR(erased, 0.4 * count, 5 * 31);  // the standard deviation is 31
  EXPECT_NEAR(middle_y / erased, height / 2.0, 1.5);
  EXPECT_NEAR(middle_x / erased, width / 2.0, 2.0);
}

TEST(PrepareImages, ErasedPixelsAreZeroAndOthersAreUntouched) {
  const at::Tensor images = random_images(3, 3, 9, 7);
  const std::vector<float> mean = {0.4f, 0.5f, 0.6f}, deviation = {0.2f, 0.3f, 0.25f};
  const Normalization normalization(mean, deviation);
  const std::vector<std::int64_t> ids = {2, 0};
  std::vector<AugmentChoice> plain(2), erasing(2);
  for (auto* choices : {&plain, &erasing}) (*choices)[0].flip = 1;
  erasing[0].erase_y = 2, erasing[0].erase_x = 3, erasing[0].erase_height = 4, erasing[0].erase_width = 2;
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    at::Tensor whole = at::empty({2, 3, 9, 7}, at::TensorOptions(at::kFloat).memory_format(format));
    at::Tensor output = at::empty_like(whole);
    prepare_images(images, ids, plain, normalization, whole, false);
    prepare_images(images, ids, erasing, normalization, output, false);
    EXPECT_TRUE(at::equal(output[1], whole[1]));
    for (std::int64_t y = 0; y < 9; ++y) {
      for (std::int64_t x = 0; x < 7; ++x) {
        const bool inside = y >= 2 && y < 6 && x >= 3 && x < 5;
        for (std::int64_t c = 0; c < 3; ++c) {
          EXPECT_EQ(output[0][c][y][x].item<float>(), inside ? 0.0f : whole[0][c][y][x].item<float>());
        }
      }
    }
  }
}

TEST(RandomPart, HasItsAreaAndAspectAndIsInsideOfTheImage) {
  AugmentOptions options;
  options.random_resized_crop = true;
  options.min_scale = 0.25;
  for (const ImageSize whole : {ImageSize{300, 400}, ImageSize{64, 64}, ImageSize{1, 1}, ImageSize{10, 1000}}) {
    double areas = 0.0;
    constexpr std::int64_t count = 2000;
    for (std::int64_t id = 0; id < count; ++id) {
      const PixelBox part = choose_part({options, 1, 1}, id, whole);
      ASSERT_TRUE(part.y >= 0 && part.x >= 0 && part.height >= 1 && part.width >= 1 &&
                  part.y + part.height <= whole.height && part.x + part.width <= whole.width)
          << part.y << " " << part.x << " " << part.height << " " << part.width;
      areas += static_cast<double>(part.height * part.width) / static_cast<double>(whole.height * whole.width);
      const PixelBox again = choose_part({options, 1, 1}, id, whole);
      EXPECT_EQ(again.y, part.y);
      EXPECT_EQ(again.width, part.width);
    }
    if (whole.height == 300) {
      // Uniform in 0.25 to 1 among those that fit. With u the logarithm of the aspect ratio, uniform in +-log(4/3), a
      // part fits up to t = 3/4 e^u: mean (E[t^2] - 0.25^2) / 2 / (E[t] - 0.25), E[e^(k u)] = sinh(k log(4/3)) / (k
      // log(4/3)).
      EXPECT_NEAR(areas / count, 0.5207, 0.015);
    }
    if (whole.height == 10) {
      EXPECT_NEAR(areas / count, 0.0133, 0.0005) << "nothing fits: the middle of 13 x 10 pixels";
    }
  }
}

TEST(AugmentOptions, CropMustFitTheImage) {
  EXPECT_NO_THROW(check_augment_options({7, false}, {8, 9}));
  EXPECT_THROW(check_augment_options({8, false}, {8, 9}), ConfigError);
  EXPECT_THROW(check_augment_options({-1, false}, {8, 9}), ConfigError);
  AugmentOptions both{2, false};
  both.random_resized_crop = true;
  EXPECT_THROW(check_augment_options(both, {8, 9}), ConfigError);
}

}  // namespace
}  // namespace sage
