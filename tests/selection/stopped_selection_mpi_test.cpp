// A selection that is stopped and goes on ends as one that was never stopped.
#include <gtest/gtest.h>

#include "selection/sage_selector.h"
#include "stopping_cases.h"
#include "support/mpi.h"

namespace sage {
namespace {

using testing::Attempt;
using testing::attempt;
using testing::bytes_of;
using testing::ClassifierSource;
using testing::kStoppedVariants;
using testing::small_config;
using testing::Variant;

TEST(StoppedSelection, GoesOnFromEveryPointToTheLastBit) {
  for (const Variant& variant : kStoppedVariants) {
    SCOPED_TRACE(variant.name);
    ClassifierSource source = testing::stopped_source();
    SelectionConfig config = small_config();
    config.batch_size = 8;
    variant.change(config);
    const Attempt whole = attempt(source, config, world(), -1);
    ASSERT_TRUE(whole.result.has_value());
    const std::vector<std::string> counts = world().all_gather_strings(std::to_string(whole.questions));
    for (const std::string& count : counts) EXPECT_EQ(count, counts[0]) << "ranks asked differently often";
    EXPECT_GE(whole.questions, 8 / world().size());

    for (std::int64_t stop_at = 0; stop_at < whole.questions; ++stop_at) {
      SCOPED_TRACE(stop_at);
      const Attempt stopped = attempt(source, config, world(), stop_at);
      ASSERT_FALSE(stopped.result.has_value());
      EXPECT_EQ(stopped.questions, stop_at + 1);
      EXPECT_EQ(stopped.state.json.empty(), world().rank() != 0);
      EXPECT_EQ(stopped.state.tensors.empty(), world().rank() != 0);
      const Attempt resumed = attempt(source, config, world(), -1, &stopped.state);
      ASSERT_TRUE(resumed.result.has_value());
      EXPECT_TRUE(bytes_of(*resumed.result) == bytes_of(*whole.result));
      EXPECT_LE(resumed.questions, whole.questions);
    }
  }
}

TEST(StoppedSelection, GoesOnOverAndOver) {
  for (const Variant& variant : kStoppedVariants) {
    SCOPED_TRACE(variant.name);
    ClassifierSource source = testing::stopped_source();
    SelectionConfig config = small_config();
    config.batch_size = 8;
    variant.change(config);
    const Attempt whole = attempt(source, config, world(), -1);
    // A sketch gets on a little each time; the pass for the scores begins anew, so that it is let run ever longer.
    Attempt last;
    std::int64_t attempts = 0;
    for (; !last.result; ++attempts) {
      ASSERT_LT(attempts, 2 * whole.questions + 4);
      const SelectionState state = last.state;
      last = attempt(source, config, world(), attempts / 2, attempts == 0 ? nullptr : &state);
    }
    EXPECT_GE(attempts, whole.questions > 1 ? 3 : 2);
    EXPECT_TRUE(bytes_of(*last.result) == bytes_of(*whole.result));
  }
}

}  // namespace
}  // namespace sage
