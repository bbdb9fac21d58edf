#include "training/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/log.h"

namespace sage {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr std::size_t kTerminalWidth = 79;

int percent(const ProgressState& state) {
  if (state.steps <= 0) return 0;
  return static_cast<int>(100 * std::clamp<std::int64_t>(state.step, 0, state.steps) / state.steps);
}

std::string tail(const ProgressState& state, std::string_view rate_unit) {
  std::string text;
  if (state.examples_per_second > 0.0)
    text += fmt::format("  {}{}", format_count(state.examples_per_second), rate_unit);
  if (state.loss) text += fmt::format("  loss {:.4f}", *state.loss);
  if (state.remaining_seconds >= 0.0) text += fmt::format("  {} left", format_duration(state.remaining_seconds));
  return text;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0.0) || seconds > 1e12) return "?";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{}s", whole);
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h {:02}m", whole / 3600, whole % 3600 / 60);
  return fmt::format("{}d {:02}h", whole / 86400, whole % 86400 / 3600);
}

std::string format_count(double value) {
  if (!std::isfinite(value)) return "?";
  const auto three_digits = [](double number, std::string_view unit) {
    return fmt::format("{:.{}f}{}", number, number < 9.995 ? 2 : number < 99.95 ? 1 : 0, unit);
  };
  if (std::abs(value) < 999.5) return fmt::format("{:.{}f}", value, value < 9.95 ? 1 : 0);
  if (std::abs(value) < 999.5e3) return three_digits(value / 1e3, "k");
  return three_digits(value / 1e6, "M");
}

std::string format_progress_bar(const ProgressState& state, std::size_t width) {
  const std::string end = fmt::format(" {:3}%{}", percent(state), tail(state, "/s"));
  constexpr std::size_t kMostBar = 30, kLeastBar = 5;
  const std::size_t taken = state.title.size() + end.size() + 3;  // a space and the brackets
  std::string text = state.title;
  if (taken + kLeastBar <= width) {
    const std::size_t length = std::min(kMostBar, width - taken);
    const std::size_t full = length * static_cast<std::size_t>(percent(state)) / 100;
    std::string bar(full, '=');
    if (full < length) bar += '>';
    bar.resize(length, ' ');
    text += fmt::format(" [{}]", bar);
  }
  text += end;
  if (text.size() > width) text.resize(width);
  return text;
}

std::string format_progress_line(const ProgressState& state) {
  return fmt::format("{}  step {}/{} ({}%){}", state.title, state.step, state.steps, percent(state),
                     tail(state, " examples/s"));
}

Progress::Progress(std::string title, std::int64_t steps, std::int64_t log_interval)
    : Progress(
          std::move(title), steps, log_interval,
          {log::is_terminal(), [](std::string_view text) { log::transient(text); },
           [](std::string_view text) { log::write(log::Level::info, text); },
           [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }}) {
}

Progress::Progress(std::string title, std::int64_t steps, std::int64_t log_interval, Outlets outlets)
    : outlets_(std::move(outlets)), log_interval_(log_interval), start_(outlets_.clock()), last_redraw_(start_ - 1.0) {
  state_.title = std::move(title);
  state_.steps = steps;
}

bool Progress::due(std::int64_t step) const {
  if (outlets_.terminal) return step == state_.steps || outlets_.clock() - last_redraw_ >= kRedrawSeconds;
  return log_interval_ > 0 && step % log_interval_ == 0;
}

bool Progress::will_show() const { return due(state_.step + 1); }

void Progress::step(std::int64_t examples, std::optional<double> loss) {
  ++state_.step;
  examples_ += examples;
  if (loss) state_.loss = loss;
  if (!due(state_.step)) return;
  const double now = outlets_.clock(), elapsed = now - start_;
  if (elapsed > 0.0) {
    state_.examples_per_second = static_cast<double>(examples_) / elapsed;
    state_.remaining_seconds = elapsed / static_cast<double>(state_.step) *
                               static_cast<double>(std::max<std::int64_t>(state_.steps - state_.step, 0));
  }
  if (outlets_.terminal) {
    last_redraw_ = now;
    outlets_.redraw(format_progress_bar(state_, kTerminalWidth));
  } else {
    outlets_.print(format_progress_line(state_));
  }
}

void Progress::finish() {
  if (outlets_.terminal) outlets_.redraw("");
}

}  // namespace sage
