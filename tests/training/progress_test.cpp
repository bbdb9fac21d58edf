#include "training/progress.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace sage {
namespace {

TEST(Progress, Durations) {
  EXPECT_EQ(format_duration(0.4), "0s");
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(59.6), "1m 00s");
  EXPECT_EQ(format_duration(185.0), "3m 05s");
  EXPECT_EQ(format_duration(7440.0), "2h 04m");
  EXPECT_EQ(format_duration(4 * 86400.0 + 3 * 3600.0), "4d 03h");
  EXPECT_EQ(format_duration(-1.0), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::quiet_NaN()), "?");
}

TEST(Progress, Counts) {
  EXPECT_EQ(format_count(3.14), "3.1");
  EXPECT_EQ(format_count(950.0), "950");
  EXPECT_EQ(format_count(999.7), "1.00k");
  EXPECT_EQ(format_count(12345.0), "12.3k");
  EXPECT_EQ(format_count(123456.0), "123k");
  EXPECT_EQ(format_count(4.56e6), "4.56M");
}

ProgressState half_way() {
  ProgressState state;
  state.title = "epoch 3/30";
  state.step = 195;
  state.steps = 390;
  state.examples_per_second = 12345.0;
  state.loss = 0.43214;
  state.remaining_seconds = 65.0;
  return state;
}

TEST(Progress, BarAndLine) {
  EXPECT_EQ(format_progress_bar(half_way(), 79),
            "epoch 3/30 [=============>            ]  50%  12.3k/s  loss 0.4321  1m 05s left");
  EXPECT_EQ(format_progress_line(half_way()),
            "epoch 3/30  step 195/390 (50%)  12.3k examples/s  loss 0.4321  1m 05s left");
  ProgressState state;
  state.title = "start";
  state.steps = 10;
  EXPECT_EQ(format_progress_line(state), "start  step 0/10 (0%)");
  state.step = 10;
  EXPECT_EQ(format_progress_bar(state, 79), "start [" + std::string(30, '=') + "] 100%");
}

TEST(Progress, TheBarNeverLeavesTheLine) {
  for (std::size_t width = 1; width < 120; ++width) {
    for (const std::int64_t step : {0, 1, 195, 389, 390}) {
      ProgressState state = half_way();
      state.step = step;
      EXPECT_LE(format_progress_bar(state, width).size(), width);
    }
  }
}

struct Recorder {
  double now = 100.0;
  std::vector<std::string> redrawn, printed;
  Progress::Outlets outlets(bool terminal) {
    return {terminal, [this](std::string_view text) { redrawn.emplace_back(text); },
            [this](std::string_view text) { printed.emplace_back(text); }, [this] { return now; }};
  }
};

TEST(Progress, ATerminalIsRedrawnAtMostTenTimesASecond) {
  Recorder recorder;
  Progress progress("epoch 1/1", 1000, 50, recorder.outlets(true));
  for (int step = 0; step < 1000; ++step) {
    recorder.now += 0.002;  // two seconds in all
    progress.step(64, 1.0);
  }
  EXPECT_GE(recorder.redrawn.size(), 18U);
  EXPECT_LE(recorder.redrawn.size(), 22U);
  EXPECT_TRUE(recorder.redrawn.back().find("100%") != std::string::npos) << "the last step always shows";
  progress.finish();
  EXPECT_EQ(recorder.redrawn.back(), "");
  EXPECT_TRUE(recorder.printed.empty());
}

TEST(Progress, ALogGetsALineEachInterval) {
  Recorder recorder;
  Progress progress("epoch 1/1", 120, 50, recorder.outlets(false));
  for (int step = 1; step <= 120; ++step) {
    recorder.now += 0.5;
    EXPECT_EQ(progress.will_show(), step % 50 == 0) << step;
    progress.step(64, 2.0);
  }
  progress.finish();
  ASSERT_EQ(recorder.printed.size(), 2U);
  EXPECT_EQ(recorder.printed[0], "epoch 1/1  step 50/120 (41%)  128 examples/s  loss 2.0000  35s left");
  EXPECT_EQ(recorder.printed[1], "epoch 1/1  step 100/120 (83%)  128 examples/s  loss 2.0000  10s left");
  EXPECT_TRUE(recorder.redrawn.empty());
  Progress silent("epoch 1/1", 10, 0, recorder.outlets(false));
  for (int step = 0; step < 10; ++step) silent.step(1);
  EXPECT_EQ(recorder.printed.size(), 2U);
}

}  // namespace
}  // namespace sage
