#include "training/selection_schedule.h"

#include <gtest/gtest.h>

#include <numeric>

namespace sage {
namespace {

std::vector<std::int64_t> epochs_with_selection(const SelectionConfig& config, std::int64_t epochs) {
  std::vector<std::int64_t> found;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    if (selects_before(config, epoch)) found.push_back(epoch);
  }
  return found;
}

using Epochs = std::vector<std::int64_t>;

TEST(SelectionSchedule, FollowsModeWarmupAndRefresh) {
  SelectionConfig config;
  config.warmup_epochs = 3;
  config.refresh_epochs = 4;
  EXPECT_EQ(epochs_with_selection(config, 12), (Epochs{3, 7, 11}));
  config.mode = "single";
  EXPECT_EQ(epochs_with_selection(config, 12), (Epochs{3}));
  config.no_warmup = true;
  EXPECT_EQ(epochs_with_selection(config, 12), (Epochs{0}));
  config.mode = "iterative";
  EXPECT_EQ(epochs_with_selection(config, 12), (Epochs{0, 4, 8}));
  config.mode = "none";
  EXPECT_EQ(epochs_with_selection(config, 12), Epochs{});
  config.mode = "iterative";
  config.method = "full";
  EXPECT_EQ(epochs_with_selection(config, 12), Epochs{});
  config.method = "sage";
  config.fraction = 1.0;
  EXPECT_EQ(epochs_with_selection(config, 12), Epochs{});
}

TEST(SelectionSchedule, StepsOfEpochsChangeWithTheFirstSelection) {
  Config config;
  config.training.epochs = 5;
  config.selection.warmup_epochs = 2;
  EXPECT_EQ(steps_of_epochs(config, 10, 3), (Epochs{10, 10, 3, 3, 3}));
}

TEST(SelectionSchedule, StepsOverrideEpochsExactly) {
  Config config;
  config.training.steps = 25;
  config.selection.warmup_epochs = 1;
  EXPECT_EQ(steps_of_epochs(config, 10, 4), (Epochs{10, 4, 4, 4, 3}));
  config.selection.mode = "none";
  EXPECT_EQ(steps_of_epochs(config, 10, 4), (Epochs{10, 10, 5}));
}

}  // namespace
}  // namespace sage
