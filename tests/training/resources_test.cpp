#include "training/resources.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/trace.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

/// Pages of its own: what comes from the heap may be memory that other tests have freed and the process still holds.
void use_memory(std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  void* const pages = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  std::memset(pages, 1, size);
  ASSERT_EQ(munmap(pages, size), 0);
}

void wait(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

class TracedResources : public testing::TemporaryFolder {};

TEST(Resources, ThePeakRisesByWhatIsUsed) {
  reset_peak_host_memory();
  const std::int64_t before = peak_host_memory();
  EXPECT_GT(before, kMiB);
  use_memory(64 * kMiB);
  EXPECT_GE(peak_host_memory(), before + 40 * kMiB);
  if (reset_peak_host_memory()) {
    EXPECT_LT(peak_host_memory(), before + 40 * kMiB);
  }
}

TEST(Resources, PhasesAddUpAndNest) {
  PhaseTimer timer;
  const Stopwatch watch;
  {
    const auto outer = timer.measure("selection");
    for (int i = 0; i < 3; ++i) {
      const auto inner = timer.measure("selection.sketch");
      wait(10);
    }
    wait(10);
  }
  timer.add("data", 1.5);
  timer.add("data", 0.25);
  EXPECT_DOUBLE_EQ(timer.seconds("data"), 1.75);
  EXPECT_GE(timer.seconds("selection.sketch"), 0.03);
  EXPECT_GE(timer.seconds("selection"), timer.seconds("selection.sketch") + 0.01);
  EXPECT_LE(timer.seconds("selection"), watch.seconds());
  EXPECT_EQ(timer.phases().at("selection.sketch").calls, 3);
  EXPECT_EQ(timer.seconds("unknown"), 0.0);
  timer.clear();
  EXPECT_TRUE(timer.phases().empty());
}

TEST(Resources, APhaseIsChargedWithItsOwnMemory) {
  PhaseTimer timer;
  {
    const auto outer = timer.measure_with_memory("outer");
    {
      const auto large = timer.measure_with_memory("large");
      use_memory(96 * kMiB);
    }
    const auto small = timer.measure_with_memory("small");
    use_memory(kMiB);
  }
  const auto peak = [&](const char* phase) { return timer.phases().at(phase).host_peak_bytes; };
  EXPECT_GT(peak("small"), 0);
  EXPECT_GE(peak("outer"), peak("large"));
  EXPECT_GE(timer.host_peak_bytes(), peak("outer"));
  if (reset_peak_host_memory()) {
    EXPECT_GE(peak("large"), peak("small") + 60 * kMiB);
  }
}

TEST_F(TracedResources, PhasesAreInTheTraceNested) {
  {
    const trace::Recording recording(folder_, 1, 2);
    PhaseTimer timer;
    {
      const auto selection = timer.measure_with_memory("selection");
      const auto part = timer.measure("selection.sketch");
      wait(2);
    }
    for (int step = 0; step < 5; ++step) {
      {
        const auto phase = timer.measure("forward");
        wait(1);
      }
      trace::count_step();
    }
    const auto evaluation = timer.measure_with_memory("evaluation");
    const auto within = timer.measure("evaluation.forward");
  }
  const auto all = nlohmann::json::parse(read_file(folder_ / "trace_rank_1.json"));
  std::map<std::string, std::vector<std::pair<double, double>>> spans;
  for (const auto& event : all.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    const double begin = event.at("ts"), duration = event.at("dur");
    spans[event.at("name")].emplace_back(begin, begin + duration);
  }
  const auto inside = [&](const char* inner, const char* outer) {
    return spans.at(outer)[0].first <= spans.at(inner)[0].first &&
           spans.at(inner)[0].second <= spans.at(outer)[0].second;
  };
  EXPECT_TRUE(inside("selection.sketch", "selection"));
  EXPECT_TRUE(inside("evaluation.forward", "evaluation"));
  ASSERT_EQ(spans.at("forward").size(), 2U) << "of as many steps as wanted";
  EXPECT_GE(spans.at("forward")[1].first, spans.at("forward")[0].second);
  EXPECT_GE(spans.at("forward")[0].second - spans.at("forward")[0].first, 1000.0) << "microseconds";
}

TEST(Resources, DeviceHooksAreAsked) {
  std::int64_t peak = 5;
  int waits = 0;
  DeviceMemoryHooks hooks{[&] { return peak; }, [&] { peak = 5; }, [&] { ++waits; }};
  PhaseTimer timer(hooks);
  {
    const auto phase = timer.measure_with_memory("forward");
    peak = 700;
  }
  EXPECT_EQ(timer.phases().at("forward").device_peak_bytes, 700);
  EXPECT_EQ(waits, 2);
  { const auto phase = timer.measure("backward"); }
  EXPECT_EQ(waits, 2) << "phases that are only timed do not wait";
  EXPECT_EQ(timer.phases().at("backward").device_peak_bytes, 0);
  EXPECT_EQ(timer.device_peak_bytes(), 700);
  PhaseTimer exact(hooks, true);
  { const auto phase = exact.measure("backward"); }
  EXPECT_EQ(waits, 4);
}

TEST(Resources, PhasesTravelAsText) {
  PhaseTimer timer;
  timer.add("a \"b\"", 0.1);
  timer.add("c", 1e-9);
  const auto back = phases_from_json(phases_to_json(timer.phases()));
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(back.at("a \"b\"").seconds, 0.1);
  EXPECT_EQ(back.at("c").seconds, 1e-9);
  EXPECT_EQ(back.at("c").calls, 1);
  EXPECT_THROW(phases_from_json("{"), InternalError);
  EXPECT_THROW(phases_from_json("{\"a\":{}}"), InternalError);
}

}  // namespace
}  // namespace sage
