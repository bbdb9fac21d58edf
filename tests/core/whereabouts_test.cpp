#include "core/whereabouts.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace sage {
namespace {

class Whereabouts : public ::testing::Test {
 protected:
  void TearDown() override { set(0, nullptr, nullptr); }
  static void set(std::int64_t step, const char* activity, const char* collective) {
    whereabouts::set_step(step);
    whereabouts::set_activity(activity);
    whereabouts::set_collective(collective);
  }
};

TEST_F(Whereabouts, LeaveOutWhatIsNotSet) {
  EXPECT_EQ(whereabouts::text(), "");
  set(120, "training", "all-reduce");
  EXPECT_EQ(whereabouts::text(), "step 120, training, in all-reduce");
  set(0, "reading data", nullptr);
  EXPECT_EQ(whereabouts::text(), "reading data");
  set(std::numeric_limits<std::int64_t>::max(), nullptr, nullptr);
  EXPECT_EQ(whereabouts::text(), "step 9223372036854775807");
  set(0, nullptr, "barrier");
  EXPECT_EQ(whereabouts::text(), "in barrier");
}

TEST_F(Whereabouts, AreCutToTheBuffer) {
  set(42, "training", "all-reduce");
  const std::string whole = whereabouts::text();
  for (std::size_t size = 1; size < 60; ++size) {
    std::string buffer(64, '#');
    const std::size_t length = whereabouts::write_to(buffer.data(), size);
    const std::string expected = whole.substr(0, size - 1);
    EXPECT_EQ(length, expected.size());
    EXPECT_EQ(std::string(buffer.c_str()), expected);
    EXPECT_EQ(buffer.substr(size), std::string(64 - size, '#')) << "written past the end";
  }
  char untouched = '#';
  EXPECT_EQ(whereabouts::write_to(&untouched, 0), 0U);
  EXPECT_EQ(untouched, '#');
}

}  // namespace
}  // namespace sage
