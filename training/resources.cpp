#include "training/resources.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/trace.h"

namespace sage {

std::int64_t peak_host_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtoll(line.c_str() + 6, nullptr, 10) * 1024;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

double process_cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

bool reset_peak_host_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5\n" << std::flush;  // proc(5): resets the peak resident set size to the current one
  return file.good();
}

PhaseTimer::PhaseTimer(DeviceMemoryHooks hooks, bool synchronize_each)
    : hooks_(std::move(hooks)), synchronize_each_(synchronize_each) {}

PhaseTimer::Scope::Scope(PhaseTimer& timer, std::string_view phase, bool memory, bool waits)
    : timer_(timer),
      phase_(phase),
      memory_(memory),
      waits_((memory || waits || timer.synchronize_each_) && timer.hooks_.synchronize),
      traced_(memory || !timer.open_.empty() ? trace::keeps_all() : trace::keeps_steps()) {
  if (waits_) timer_.hooks_.synchronize();
  if (memory_) {
    timer_.sample_memory();
    timer_.open_.push_back(phase_);
  }
  start_ = std::chrono::steady_clock::now();
}

PhaseTimer::Scope::~Scope() {
  // Hooks may throw (a device that failed); the error then shows at the next use of the device, not here.
  try {
    if (waits_) timer_.hooks_.synchronize();
    const auto end = std::chrono::steady_clock::now();
    timer_.add(phase_, std::chrono::duration<double>(end - start_).count());
    if (traced_) trace::add(phase_, start_, end);
    if (memory_) timer_.sample_memory();
  } catch (...) {
  }
  if (memory_) timer_.open_.pop_back();
}

PhaseTimer::Scope PhaseTimer::measure(std::string_view phase) { return Scope(*this, phase, false, false); }
PhaseTimer::Scope PhaseTimer::measure_to_the_end(std::string_view phase) { return Scope(*this, phase, false, true); }
PhaseTimer::Scope PhaseTimer::measure_with_memory(std::string_view phase) { return Scope(*this, phase, true, true); }

PhaseUse& PhaseTimer::use(std::string_view phase) {
  const auto found = phases_.find(phase);
  return found != phases_.end() ? found->second : phases_[std::string(phase)];
}

void PhaseTimer::add(std::string_view phase, double seconds) {
  PhaseUse& sum = use(phase);
  sum.seconds += seconds;
  ++sum.calls;
}

double PhaseTimer::seconds(std::string_view phase) const {
  const auto found = phases_.find(phase);
  return found != phases_.end() ? found->second.seconds : 0.0;
}

void PhaseTimer::sample_memory() {
  const std::int64_t host = peak_host_memory();
  const std::int64_t device = hooks_.peak_bytes ? hooks_.peak_bytes() : 0;
  host_peak_ = std::max(host_peak_, host);
  device_peak_ = std::max(device_peak_, device);
  for (const std::string& phase : open_) {
    PhaseUse& sum = use(phase);
    sum.host_peak_bytes = std::max(sum.host_peak_bytes, host);
    sum.device_peak_bytes = std::max(sum.device_peak_bytes, device);
  }
  reset_peak_host_memory();
  if (hooks_.reset_peak) hooks_.reset_peak();
}

std::int64_t PhaseTimer::host_peak_bytes() {
  sample_memory();
  return host_peak_;
}

std::int64_t PhaseTimer::device_peak_bytes() {
  sample_memory();
  return device_peak_;
}

void PhaseTimer::clear() { phases_.clear(); }

std::string phases_to_json(const std::map<std::string, PhaseUse, std::less<>>& phases) {
  nlohmann::json all = nlohmann::json::object();
  for (const auto& [name, use] : phases) {
    all[name] = {{"seconds", use.seconds},
                 {"calls", use.calls},
                 {"host_peak_bytes", use.host_peak_bytes},
                 {"device_peak_bytes", use.device_peak_bytes}};
  }
  return all.dump();
}

std::map<std::string, PhaseUse, std::less<>> phases_from_json(const std::string& text) {
  std::map<std::string, PhaseUse, std::less<>> phases;
  try {
    const nlohmann::json all = nlohmann::json::parse(text);
    for (const auto& [name, use] : all.items()) {
      phases[name] = {use.at("seconds").get<double>(), use.at("calls").get<std::int64_t>(),
                      use.at("host_peak_bytes").get<std::int64_t>(), use.at("device_peak_bytes").get<std::int64_t>()};
    }
  } catch (const nlohmann::json::exception& error) {
    throw InternalError(fmt::format("phase times are not valid JSON: {}", error.what()));
  }
  return phases;
}

}  // namespace sage
