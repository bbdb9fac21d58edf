#include "distributed/device_choice.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace sage {
namespace {

const DeviceUuid a{1}, b{2}, c{3}, d{4};
using Ranks = std::vector<int>;

TEST(DeviceChoice, RanksThatSeeAllTakeOneEach) {
  const DeviceChoice choice = choose_devices({{a, b, c}, {a, b, c}, {a, b, c}});
  EXPECT_EQ(choice.of_rank, (Ranks{0, 1, 2}));
  EXPECT_EQ(choice.devices, 3);
  EXPECT_FALSE(choice.shared);
}

TEST(DeviceChoice, RanksThatSeeOneEachTakeIt) {
  const DeviceChoice choice = choose_devices({{a}, {b}, {c}, {d}});
  EXPECT_EQ(choice.of_rank, (Ranks{0, 0, 0, 0}));
  EXPECT_EQ(choice.devices, 4);
  EXPECT_FALSE(choice.shared);
}

TEST(DeviceChoice, WhoSeesLeastChoosesFirst) {
  const DeviceChoice choice = choose_devices({{a, b}, {a}});
  EXPECT_EQ(choice.of_rank, (Ranks{1, 0}));
  EXPECT_FALSE(choice.shared);
}

TEST(DeviceChoice, MoreRanksThanDevicesShareEvenly) {
  const DeviceChoice choice = choose_devices({{a, b}, {a, b}, {a, b}, {a, b}});
  EXPECT_EQ(choice.of_rank, (Ranks{0, 1, 0, 1}));
  EXPECT_TRUE(choice.shared);
  EXPECT_TRUE(choose_devices({{a}, {a}}).shared);
  EXPECT_THROW(choose_devices({{a}, {}}), InternalError);
}

}  // namespace
}  // namespace sage
