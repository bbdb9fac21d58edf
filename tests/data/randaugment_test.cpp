// Bit for bit against torchvision: tests/data/data_peer_test.py.
#include "data/randaugment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

namespace sage {
namespace {

TEST(RandAugment, ChoicesAreUniformAndDependOnSeedEpochAndIdOnly) {
  std::map<ImageOperation, int> counts;
  int backwards = 0, rotations = 0;
  constexpr int images = 7000;
  for (std::int64_t id = 0; id < images; ++id) {
    const auto changes = choose_changes(2, 9.0, 1, 4, id, {64, 32});
    const auto again = choose_changes(2, 9.0, 1, 4, id, {64, 32});
    ASSERT_EQ(changes.size(), 2u);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(changes[i].operation, again[i].operation);
      EXPECT_EQ(changes[i].strength, again[i].strength);
      ++counts[changes[i].operation];
      if (changes[i].operation != ImageOperation::rotate) continue;
      ++rotations;
      backwards += changes[i].strength < 0;
      EXPECT_DOUBLE_EQ(std::abs(changes[i].strength), 9.0);
    }
  }
  EXPECT_EQ(counts.size(), static_cast<std::size_t>(image_operation_count));
  for (const auto& [operation, count] : counts) EXPECT_NEAR(count, 1000, 155) << static_cast<int>(operation);
  EXPECT_NEAR(backwards, rotations / 2, 80);
}

/// The table of torchvision's RandAugment, with 31 bins, at bin 9 and at the ends.
TEST(RandAugment, StrengthsAreTorchvisions) {
  const auto strength = [](ImageOperation operation, double magnitude) {
    for (std::int64_t id = 0;; ++id) {
      const ImageChange change = choose_changes(1, magnitude, 1, 1, id, {331, 662}).front();
      if (change.operation == operation && change.strength >= 0) return change.strength;
    }
  };
  EXPECT_DOUBLE_EQ(strength(ImageOperation::shear_x, 9), 0.09);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::translate_x, 9), 90.0);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::translate_y, 9), 45.0);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::brightness, 9), 0.27);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::posterize, 9), 7.0);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::posterize, 30), 4.0);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::posterize, 0), 8.0);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::solarize, 9), 178.5);
  EXPECT_DOUBLE_EQ(strength(ImageOperation::solarize, 30), 0.0);
}

TEST(RandAugment, WithoutStrengthAnImageStaysAsItIs) {
  std::vector<std::uint8_t> pixels, scratch;
  for (int i = 0; i < 3 * 20 * 30; ++i) pixels.push_back(static_cast<std::uint8_t>(i * 37 % 256));
  for (const ImageOperation operation :
       {ImageOperation::identity, ImageOperation::shear_x, ImageOperation::shear_y, ImageOperation::translate_x,
        ImageOperation::translate_y, ImageOperation::rotate, ImageOperation::brightness, ImageOperation::color,
        ImageOperation::contrast, ImageOperation::sharpness}) {
    for (const std::int64_t channels : {1, 3}) {
      std::vector<std::uint8_t> changed = pixels;
      apply_change({operation, 0.0}, changed.data(), channels, {20, 30}, scratch);
      EXPECT_EQ(changed, pixels) << static_cast<int>(operation);
    }
  }
}

}  // namespace
}  // namespace sage
