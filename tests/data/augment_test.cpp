#include "data/augment.h"

#include <ATen/ops/empty.h>
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
    const auto choices = choose_augmentations(options, 1, 2, ids);
    EXPECT_EQ(choices.size(), options.any() ? ids.size() : 0);
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
    const AugmentChoice choice = choose_augmentation(options, 1, 1, id);
    ++rows[choice.shift_y], ++columns[choice.shift_x], ++flips[choice.flip];
    const auto equal = [&](const AugmentChoice& other) {
      return other.shift_y == choice.shift_y && other.shift_x == choice.shift_x && other.flip == choice.flip;
    };
    EXPECT_TRUE(equal(choose_augmentation(options, 1, 1, id)));
    same_next_epoch += equal(choose_augmentation(options, 1, 2, id));
    same_other_seed += equal(choose_augmentation(options, 2, 1, id));
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

TEST(AugmentOptions, CropMustFitTheImage) {
  EXPECT_NO_THROW(check_augment_options({7, false}, 8, 9));
  EXPECT_THROW(check_augment_options({8, false}, 8, 9), ConfigError);
  EXPECT_THROW(check_augment_options({-1, false}, 8, 9), ConfigError);
}

}  // namespace
}  // namespace sage
