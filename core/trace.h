// What the threads of this process did when, as a file for chrome://tracing or https://ui.perfetto.dev (Trace Event
// Format, "X" events). Off unless a Recording lives; then a span costs two readings of the clock and a lock.
#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sage::trace {

using Clock = std::chrono::steady_clock;

/// Records while it lives; one at a time. At its end, also when an exception passes, it writes
/// <folder>/trace_rank_R.json whole; a failure to write is logged, not thrown.
class Recording {
 public:
  /// `steps`: spans that belong to single training steps are kept for so many of them (count_step()).
  Recording(std::filesystem::path folder, int rank, std::int64_t steps);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

 private:
  std::filesystem::path folder_;
  int rank_;
};

/// Whether a span that begins now would be kept: one of a training step, or any other one.
bool keeps_steps() noexcept;
bool keeps_all() noexcept;
/// A training step is done.
void count_step() noexcept;
/// Names the calling thread.
void name_thread(std::string_view name);
/// Adds what the calling thread did between two moments.
void add(std::string_view name, Clock::time_point begin, Clock::time_point end);

/// What the calling thread does while it lives: as part of a training step, or, with keeps_all(), of anything else.
class Span {
 public:
  /// `name` must outlive it.
  explicit Span(std::string_view name, bool kept = keeps_steps()) : name_(name), kept_(kept) {
    if (kept_) begin_ = Clock::now();
  }
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  std::string_view name_;
  bool kept_;
  Clock::time_point begin_;
};

/// While it lives, training steps count apart, up to as many: those of a proxy take none from the run's. Of the thread
/// that trains.
class StepsApart {
 public:
  StepsApart() noexcept;
  ~StepsApart();
  StepsApart(const StepsApart&) = delete;
  StepsApart& operator=(const StepsApart&) = delete;
};

/// The events so far as a file's content. For tests and for Recording.
std::string to_json(int rank);

}  // namespace sage::trace
