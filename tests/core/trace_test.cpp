#include "core/trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "core/files.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

class TraceTest : public testing::TemporaryFolder {
 protected:
  nlohmann::json read(int rank) {
    return nlohmann::json::parse(read_file(folder_ / "profile" / ("trace_rank_" + std::to_string(rank) + ".json")));
  }
};

TEST_F(TraceTest, SpansNestAndThreadsAreNamed) {
  { const trace::Span nothing("before"); }
  try {
    const trace::Recording recording(folder_ / "profile", 3, 100);
    const trace::Span outer("outer");
    { const trace::Span inner("inner \"quoted\""); }
    std::thread([] {
      trace::name_thread("loader");
      const trace::Span span("batch");
    }).join();
    throw std::runtime_error("the run fails");
  } catch (const std::runtime_error&) {
  }
  const auto all = read(3);
  std::map<std::string, nlohmann::json> spans;
  std::map<std::int64_t, std::string> threads;
  for (const auto& event : all.at("traceEvents")) {
    EXPECT_EQ(event.at("pid"), 3);
    if (event.at("ph") == "X") {
      EXPECT_TRUE(spans.emplace(event.at("name"), event).second);
    } else if (event.at("name") == "thread_name") {
      threads[event.at("tid")] = event.at("args").at("name");
    }
  }
  ASSERT_EQ(spans.size(), 3U);
  const auto begin = [&](const char* name) { return spans.at(name).at("ts").get<double>(); };
  const auto end = [&](const char* name) { return begin(name) + spans.at(name).at("dur").get<double>(); };
  EXPECT_GE(begin("inner \"quoted\""), begin("outer"));
  EXPECT_LE(end("inner \"quoted\""), end("outer") + 1e-3);
  EXPECT_GE(begin("batch"), end("inner \"quoted\""));
  EXPECT_EQ(threads.at(spans.at("outer").at("tid")), "main");
  EXPECT_EQ(threads.at(spans.at("batch").at("tid")), "loader");
}

TEST_F(TraceTest, StepsAreKeptUpToTheirNumber) {
  {
    const trace::Recording recording(folder_ / "profile", 0, 2);
    for (int step = 0; step < 5; ++step) {
      { const trace::Span span("step"); }
      trace::count_step();
    }
    EXPECT_TRUE(trace::keeps_all());
    trace::add("evaluation", trace::Clock::now(), trace::Clock::now());
  }
  EXPECT_FALSE(trace::keeps_all());
  std::map<std::string, int> count;
  const auto all = read(0);
  for (const auto& event : all.at("traceEvents")) ++count[event.at("name")];
  EXPECT_EQ(count["step"], 2);
  EXPECT_EQ(count["evaluation"], 1);
}

}  // namespace
}  // namespace sage
