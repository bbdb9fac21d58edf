#include "training/montage.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/synthetic_experiment.h"

namespace sage {
namespace {

TEST(Montage, ShowsTheImagesAsTheyAre) {
  const auto experiment = testing::synthetic_experiment(10, 3, {});
  const Dataset& data = experiment->dataset;
  const std::vector<std::int64_t> ids{7, 2, 9, 0, 4};
  const at::Tensor picture = montage(*experiment->train_images, ids, data.mean, data.deviation, 3);
  // 8 x 8 pixels four times as large, three in a row, a black line between.
  ASSERT_EQ(picture.sizes(), (std::vector<std::int64_t>{1, 65, 98}));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) / 3 * 33, column = static_cast<std::int64_t>(i) % 3 * 33;
    for (std::int64_t y = 0; y < 32; y += 5) {
      for (std::int64_t x = 0; x < 32; x += 5) {
        EXPECT_EQ(picture[0][row + y][column + x].item<int>(), data.train.images[ids[i]][0][y / 4][x / 4].item<int>());
      }
    }
  }
  EXPECT_EQ(picture[0][32].max().item<int>(), 0);
  EXPECT_EQ(picture[0].narrow(0, 33, 32).narrow(1, 66, 32).max().item<int>(), 0) << "an empty place";
  EXPECT_THROW(montage(*experiment->train_images, {}, data.mean, data.deviation, 3), InternalError);
}

TEST(Montage, PicksAreSpreadOverAll) {
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 100; id < 148; ++id) ids.push_back(id);
  const auto picked = spread(ids, 24);
  ASSERT_EQ(picked.size(), 24U);
  EXPECT_EQ(picked.front(), 100);
  for (std::size_t i = 1; i < picked.size(); ++i) EXPECT_EQ(picked[i] - picked[i - 1], 2);
  EXPECT_EQ(spread(ids, 100), ids);
  EXPECT_TRUE(spread({}, 5).empty());
}

}  // namespace
}  // namespace sage
