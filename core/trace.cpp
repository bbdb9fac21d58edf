#include "core/trace.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"

namespace sage::trace {
namespace {

struct Event {
  std::string name;
  std::int64_t thread, begin, duration;  // begin and duration in nanoseconds
};

struct Recorder {
  std::atomic<bool> on = false;
  std::atomic<std::int64_t> steps_left = 0, steps_left_apart = 0;
  std::mutex mutex;  // guards all below
  Clock::time_point start;
  std::vector<Event> events;
  std::int64_t threads = 0;  // that have a number
  std::unordered_map<std::int64_t, std::string> names;

  /// With the mutex held.
  std::int64_t this_thread() {
    // For life: the system gives the number of a thread that has ended to the next one.
    thread_local const std::int64_t number = threads++;
    return number;
  }
};

Recorder& recorder() {
  static Recorder instance;
  return instance;
}

}  // namespace

Recording::Recording(std::filesystem::path folder, int rank, std::int64_t steps)
    : folder_(std::move(folder)), rank_(rank) {
  Recorder& r = recorder();
  const std::lock_guard lock(r.mutex);
  require(!r.on, "a trace is being recorded already");
  r.start = Clock::now();
  r.events.clear();
  r.names = {{r.this_thread(), "main"}};
  r.steps_left = r.steps_left_apart = steps;
  r.on = true;
}

Recording::~Recording() {
  recorder().on = false;
  try {
    make_folder(folder_);
    write_file(folder_ / ("trace_rank_" + std::to_string(rank_) + ".json"), to_json(rank_));
  } catch (const std::exception& error) {
    log::every_rank(std::string("the trace could not be written: ") + error.what());
  }
}

bool keeps_all() noexcept { return recorder().on.load(std::memory_order_relaxed); }
bool keeps_steps() noexcept { return keeps_all() && recorder().steps_left.load(std::memory_order_relaxed) > 0; }
void count_step() noexcept { recorder().steps_left.fetch_sub(1, std::memory_order_relaxed); }

StepsApart::StepsApart() noexcept {
  Recorder& r = recorder();
  r.steps_left_apart = r.steps_left.exchange(r.steps_left_apart);
}
StepsApart::~StepsApart() {
  Recorder& r = recorder();
  r.steps_left_apart = r.steps_left.exchange(r.steps_left_apart);
}

void name_thread(std::string_view name) {
  if (!keeps_all()) return;
  Recorder& r = recorder();
  const std::lock_guard lock(r.mutex);
  r.names[r.this_thread()] = name;
}

void add(std::string_view name, Clock::time_point begin, Clock::time_point end) {
  const auto nanoseconds = [](auto duration) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  };
  Recorder& r = recorder();
  const std::lock_guard lock(r.mutex);
  if (!r.on) return;
  r.events.push_back({std::string(name), r.this_thread(), nanoseconds(begin - r.start), nanoseconds(end - begin)});
}

Span::~Span() {
  if (!kept_) return;
  try {
    add(name_, begin_, Clock::now());
  } catch (const std::exception&) {
    // No memory for one more event: the trace goes without it.
  }
}

std::string to_json(int rank) {
  Recorder& r = recorder();
  const std::lock_guard lock(r.mutex);
  // Microseconds, as the format wants them, with the nanoseconds behind the point.
  const auto microseconds = [](std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1000.0; };
  nlohmann::json events = nlohmann::json::array();
  events.push_back({{"ph", "M"},
                    {"name", "process_name"},
                    {"pid", rank},
                    {"tid", 0},
                    {"args", {{"name", "rank " + std::to_string(rank)}}}});
  for (const auto& [thread, name] : r.names) {
    events.push_back(
        {{"ph", "M"}, {"name", "thread_name"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}});
  }
  for (const Event& event : r.events) {
    events.push_back({{"ph", "X"},
                      {"name", event.name},
                      {"pid", rank},
                      {"tid", event.thread},
                      {"ts", microseconds(event.begin)},
                      {"dur", microseconds(event.duration)}});
  }
  return nlohmann::json{{"displayTimeUnit", "ms"}, {"traceEvents", events}}.dump();
}

}  // namespace sage::trace
