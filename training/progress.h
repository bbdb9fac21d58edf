// How far an epoch is: a bar on a terminal, plain lines in a batch log.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace sage {

/// "7s", "3m 05s", "2h 04m", "4d 03h"; "?" where unknown (negative or not finite).
std::string format_duration(double seconds);
/// With three digits or so: "950", "12.3k", "4.56M".
std::string format_count(double value);

struct ProgressState {
  std::string title;                 ///< "epoch 3/30"
  std::int64_t step = 0, steps = 0;  ///< done, of
  double examples_per_second = 0.0;  ///< 0: unknown
  std::optional<double> loss;
  double remaining_seconds = -1.0;  ///< negative: unknown
};

/// "epoch 3/30 [=====>    ]  52%  12.3k/s  loss 0.4321  1m 05s left", at most `width` characters (the bar shrinks, then
/// the end is cut).
std::string format_progress_bar(const ProgressState& state, std::size_t width);
/// "epoch 3/30  step 50/390 (13%)  12.3k examples/s  loss 0.4321  1m 05s left"
std::string format_progress_line(const ProgressState& state);

/// Shows the progress of one loop. On a terminal a bar is redrawn at most ten times a second; elsewhere a line is
/// logged each `log_interval` steps. Only rank 0 shows anything (core/log.h sees to that); no collective.
class Progress {
 public:
  using Clock = std::function<double()>;  ///< seconds
  using Show = std::function<void(std::string_view)>;
  struct Outlets {
    bool terminal;
    Show redraw;  ///< replaces the last line of a terminal
    Show print;   ///< a line of the log
    Clock clock;
  };
  /// `log_interval` 0: no lines.
  Progress(std::string title, std::int64_t steps, std::int64_t log_interval);
  Progress(std::string title, std::int64_t steps, std::int64_t log_interval, Outlets outlets);

  /// One step done, with `examples` examples over all ranks.
  void step(std::int64_t examples, std::optional<double> loss = {});
  /// True where the next step() will show something: the loss need not be fetched from a device otherwise.
  bool will_show() const;
  /// Clears the bar.
  void finish();
  const ProgressState& state() const { return state_; }

 private:
  bool due(std::int64_t step) const;
  Outlets outlets_;
  std::int64_t log_interval_;
  ProgressState state_;
  std::int64_t examples_ = 0;
  double start_, last_redraw_;
};

}  // namespace sage
