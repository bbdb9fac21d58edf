// What a run costs: seconds and peak memory, by phase.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/stopwatch.h"

namespace sage {

/// Most memory that this process has had in use (resident), in bytes, since its start or the last reset.
std::int64_t peak_host_memory();
/// Starts the peak anew from what is in use now. False where the system does not allow it (then the peak goes on).
bool reset_peak_host_memory();

/// CPU time that all threads of this process have used so far, waiting for messages in a loop included, in seconds.
double process_cpu_seconds();

/// How to ask a device. All may be empty (CPU).
struct DeviceMemoryHooks {
  std::function<std::int64_t()> peak_bytes;  ///< since the last reset
  std::function<void()> reset_peak;
  std::function<void()> synchronize;  ///< waits for all work, so that a phase is charged with its own
};

struct PhaseUse {
  double seconds = 0.0;
  std::int64_t calls = 0;
  std::int64_t host_peak_bytes = 0;    ///< 0: not measured
  std::int64_t device_peak_bytes = 0;  ///< 0: not measured, or no device
};

/// Adds up the use of named phases ("data", "forward", "selection.sketch"; dots group them). Phases may nest: the outer
/// one then includes the inner. One thread. They are in a trace (core/trace.h) too: those with memory and what is in
/// them always, others for the steps that the trace keeps.
class PhaseTimer {
 public:
  /// `synchronize_each`: wait for the device at both ends of timed-only phases too (exact, but it stops the pipeline).
  explicit PhaseTimer(DeviceMemoryHooks hooks = {}, bool synchronize_each = false);

  /// Ends its phase when it goes out of scope.
  class Scope {
   public:
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    friend class PhaseTimer;
    Scope(PhaseTimer& timer, std::string_view phase, bool memory, bool waits);
    PhaseTimer& timer_;
    std::string phase_;
    bool memory_, waits_, traced_;
    std::chrono::steady_clock::time_point start_;
  };
  /// Time only: two readings of the clock.
  [[nodiscard]] Scope measure(std::string_view phase);
  /// The same, waiting for the device at both ends: for phases among steps that do not wait.
  [[nodiscard]] Scope measure_to_the_end(std::string_view phase);
  /// Time and peak memory (tens of microseconds; synchronizes the device): for phases of a second and more.
  [[nodiscard]] Scope measure_with_memory(std::string_view phase);
  void add(std::string_view phase, double seconds);

  const std::map<std::string, PhaseUse, std::less<>>& phases() const { return phases_; }
  double seconds(std::string_view phase) const;
  /// Peaks of the whole process, whatever phases were measured.
  std::int64_t host_peak_bytes();
  std::int64_t device_peak_bytes();
  /// Forgets the phases (a new epoch); the process peaks stay.
  void clear();

 private:
  /// Charges the peaks since the last sample to all open phases with memory, and starts them anew.
  void sample_memory();
  PhaseUse& use(std::string_view phase);

  DeviceMemoryHooks hooks_;
  bool synchronize_each_;
  std::map<std::string, PhaseUse, std::less<>> phases_;
  std::vector<std::string> open_;  // phases whose memory is being measured
  std::int64_t host_peak_ = 0, device_peak_ = 0;
};

/// {"forward":{"seconds":1.5,"calls":10,"host_peak_bytes":0,"device_peak_bytes":0},...} and back, to send over ranks.
/// Throws InternalError on other text.
std::string phases_to_json(const std::map<std::string, PhaseUse, std::less<>>& phases);
std::map<std::string, PhaseUse, std::less<>> phases_from_json(const std::string& text);

}  // namespace sage
