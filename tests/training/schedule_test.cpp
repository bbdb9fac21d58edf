#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "training/schedule.h"

namespace sage {
namespace {

TrainingConfig with(const char* scheduler, std::int64_t epochs) {
  TrainingConfig config;
  config.scheduler = scheduler;
  config.epochs = epochs;
  config.lr = 0.4;
  config.gamma = 0.5;
  return config;
}

TEST(LearningRate, Cosine) {
  TrainingConfig config = with("cosine", 4);
  config.min_lr = 0.1;
  const LearningRateSchedule schedule(config, 2);
  EXPECT_EQ(schedule.total_steps(), 8);
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.4);
  EXPECT_DOUBLE_EQ(schedule.at(2), 0.1 + 0.3 * (1.0 + std::sqrt(0.5)) / 2.0);
  EXPECT_DOUBLE_EQ(schedule.at(4), 0.25);
  EXPECT_DOUBLE_EQ(schedule.at(7), 0.1 + 0.3 * (1.0 + std::cos(std::numbers::pi * 7.0 / 8.0)) / 2.0);
  EXPECT_DOUBLE_EQ(schedule.at(100), schedule.at(7)) << "past the end the last value stays";
}

/// The published schedule of progressive data dropout: a factor of 0.98 after each epoch, whatever its number of steps.
TEST(LearningRate, StepsOfOneEpoch) {
  TrainingConfig config = with("step", 30);
  config.step_size = 1;
  config.gamma = 0.98;
  const LearningRateSchedule schedule(config, 7);
  for (std::int64_t step = 0; step < 210; ++step) {
    EXPECT_DOUBLE_EQ(schedule.at(step), 0.4 * std::pow(0.98, static_cast<double>(step / 7))) << step;
  }
}

TEST(LearningRate, IsScaledByTheNumberOfRanksOnRequest) {
  TrainingConfig config = with("constant", 3);
  EXPECT_EQ(with_scaled_rate(config, 4).lr, 0.4);
  config.lr_scaling = "linear";
  EXPECT_EQ(with_scaled_rate(config, 4).lr, 1.6);
  EXPECT_EQ(with_scaled_rate(config, 1).lr, 0.4);
  config.lr_scaling = "sqrt";
  EXPECT_EQ(with_scaled_rate(config, 4).lr, 0.8);
  config.lr_scaling = "cubic";
  EXPECT_THROW(with_scaled_rate(config, 4), ConfigError);
}

TEST(LearningRate, CosineAfterWarmUp) {
  TrainingConfig config = with("cosine", 6);
  config.lr_warmup_epochs = 2.0;
  const LearningRateSchedule schedule(config, 2);
  const double expected[] = {0.1, 0.2, 0.3, 0.4, 0.4};
  for (std::int64_t step = 0; step < 5; ++step) EXPECT_DOUBLE_EQ(schedule.at(step), expected[step]) << step;
  EXPECT_DOUBLE_EQ(schedule.at(8), 0.2);  // the middle of the 8 steps that are left
}

TEST(LearningRate, HalfAnEpochOfWarmUpAndNoWholeSteps) {
  TrainingConfig config = with("constant", 2);
  config.lr_warmup_epochs = 0.5;
  const LearningRateSchedule schedule(config, 5);
  EXPECT_DOUBLE_EQ(schedule.warmup_steps(), 2.5);
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.4 / 2.5);
  EXPECT_DOUBLE_EQ(schedule.at(1), 0.8 / 2.5);
  EXPECT_DOUBLE_EQ(schedule.at(2), 0.4);
  EXPECT_DOUBLE_EQ(schedule.at(3), 0.4);
}

TEST(LearningRate, Step) {
  TrainingConfig config = with("step", 10);
  config.step_size = 3;
  config.min_lr = 0.07;
  const LearningRateSchedule schedule(config, 7);
  EXPECT_DOUBLE_EQ(schedule.at(20), 0.4);
  EXPECT_DOUBLE_EQ(schedule.at(21), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(41), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(42), 0.1);
  EXPECT_DOUBLE_EQ(schedule.at(63), 0.07) << "not below min_lr";
}

TEST(LearningRate, MultistepInAnyOrder) {
  TrainingConfig config = with("multistep", 10);
  config.milestones = {8, 2, 40};
  const LearningRateSchedule schedule(config, 3);
  EXPECT_DOUBLE_EQ(schedule.at(5), 0.4);
  EXPECT_DOUBLE_EQ(schedule.at(6), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(23), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(24), 0.1);
  EXPECT_DOUBLE_EQ(schedule.at(29), 0.1);
}

TEST(LearningRate, StepsOverrideEpochsAndTheScheduleFollows) {
  TrainingConfig config = with("multistep", 30);
  config.milestones = {15, 20};
  config.lr_warmup_epochs = 1.0;
  config.steps = 600;
  for (const std::int64_t steps_per_epoch : {1, 5, 390}) {
    const LearningRateSchedule schedule(config, steps_per_epoch);
    EXPECT_EQ(schedule.total_steps(), 600);
    EXPECT_DOUBLE_EQ(schedule.warmup_steps(), 20.0);
    EXPECT_DOUBLE_EQ(schedule.at(9), 0.2);
    EXPECT_DOUBLE_EQ(schedule.at(299), 0.4);
    EXPECT_DOUBLE_EQ(schedule.at(300), 0.2);
    EXPECT_DOUBLE_EQ(schedule.at(400), 0.1);
  }
}

TEST(LearningRate, MilestonesFallOnTheExactStep) {
  // Every epoch of every length up to 60: multiplied and divided in floating point, still exact.
  for (std::int64_t epochs = 1; epochs <= 60; ++epochs) {
    for (const std::int64_t length : {1, 3, 49, 391}) {
      TrainingConfig config = with("multistep", epochs);
      for (std::int64_t epoch = 1; epoch < epochs; ++epoch) config.milestones.push_back(epoch);
      const LearningRateSchedule schedule(config, length);
      for (std::int64_t epoch = 1; epoch < epochs; ++epoch) {
        ASSERT_DOUBLE_EQ(schedule.at(epoch * length), 0.4 * std::pow(0.5, static_cast<double>(epoch)));
        ASSERT_DOUBLE_EQ(schedule.at(epoch * length - 1), 0.4 * std::pow(0.5, static_cast<double>(epoch - 1)));
      }
    }
  }
}

TEST(LearningRate, EpochsOfDifferingLength) {
  TrainingConfig config = with("multistep", 99);
  config.milestones = {2, 3};
  config.lr_warmup_epochs = 0.5;
  const std::vector<std::int64_t> lengths{10, 10, 2, 2};
  const LearningRateSchedule schedule(config, lengths);
  EXPECT_EQ(schedule.total_steps(), 24);
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.08);
  EXPECT_DOUBLE_EQ(schedule.at(19), 0.4);
  EXPECT_DOUBLE_EQ(schedule.at(20), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(21), 0.2);
  EXPECT_DOUBLE_EQ(schedule.at(22), 0.1);
}

TEST(LearningRate, BadSettingsAreConfigErrors) {
  EXPECT_THROW(LearningRateSchedule(with("linear", 3), 5), ConfigError);
  EXPECT_THROW(LearningRateSchedule(with("cosine", 0), 5), ConfigError);
  EXPECT_THROW(LearningRateSchedule(with("cosine", 3), 0), ConfigError);
  TrainingConfig config = with("step", 3);
  config.step_size = 0;
  EXPECT_THROW(LearningRateSchedule(config, 5), ConfigError);
  config = with("multistep", 3);
  config.milestones = {-1};
  EXPECT_THROW(LearningRateSchedule(config, 5), ConfigError);
  config = with("cosine", 3);
  config.lr_warmup_epochs = -0.5;
  EXPECT_THROW(LearningRateSchedule(config, 5), ConfigError);
}

TEST(LearningRate, WithStepsItDoesNotDependOnTheLengthOfEpochs) {
  TrainingConfig config;
  config.steps = 300;
  config.epochs = 30;
  config.lr_warmup_epochs = 1;
  const std::vector<std::int64_t> subset = {98, 98, 98, 6}, all = {300};
  for (const char* scheduler : {"cosine", "step", "constant"}) {
    config.scheduler = scheduler;
    const LearningRateSchedule of_subset(config, subset), of_all(config, all);
    EXPECT_EQ(of_subset.warmup_steps(), 10.0);
    for (std::int64_t step = 0; step < 300; ++step) EXPECT_EQ(of_subset.at(step), of_all.at(step)) << scheduler;
  }
}

}  // namespace
}  // namespace sage
