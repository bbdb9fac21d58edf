// Seconds by a clock that never jumps.
#pragma once
#include <chrono>

namespace sage {

/// Seconds since it was made or restarted.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  void restart() { start_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Adds the time that it lives to `seconds`.
class SecondsAdder {
 public:
  explicit SecondsAdder(double& seconds) : seconds_(seconds) {}
  ~SecondsAdder() { seconds_ += watch_.seconds(); }
  SecondsAdder(const SecondsAdder&) = delete;
  SecondsAdder& operator=(const SecondsAdder&) = delete;

 private:
  double& seconds_;
  Stopwatch watch_;
};

}  // namespace sage
