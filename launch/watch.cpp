#include "launch/watch.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "launch/child_process.h"
#include "launch/terminal_plot.h"
#include "training/folder_lock.h"
#include "training/progress.h"
#include "training/run_folder.h"

namespace sage {
namespace {

using json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::size_t log_tail_bytes = 1 << 16;

bool is_running(const fs::path& run) {
  try {
    refuse_if_in_use(run);
    return false;
  } catch (const ConfigError&) {
    return true;
  }
}

/// The last lines of the log; the first of them may be cut.
std::vector<std::string> log_lines(const fs::path& run) {
  std::ifstream in(run / "training.log", std::ios::binary | std::ios::ate);
  if (!in) return {};
  const auto size = static_cast<std::streamoff>(in.tellg());
  in.seekg(std::max<std::streamoff>(0, size - static_cast<std::streamoff>(log_tail_bytes)));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// What the figures of the epochs are drawn from; empty before the end of the first.
json read_metrics(const fs::path& run) {
  const fs::path path = run / "metrics.json";
  if (!fs::is_regular_file(path)) return nullptr;
  const std::string text = read_file(path);
  try {
    json metrics = parse_json<json>(text, {.bytes = text.size(), .values = std::size_t{64} << 20});
    for (const char* key : {"summary", "epochs", "selections"}) metrics.at(key);
    return metrics;
  } catch (const JsonError& failure) {
    throw CheckpointError(fmt::format("{}: damaged: {}", path.string(), failure.what()));
  } catch (const json::exception& failure) {
    throw CheckpointError(fmt::format("{}: not one of this version ({})", path.string(), excerpt(failure.what(), 200)));
  }
}

double value_of(const json& evaluation, const char* what) {
  if (!evaluation.is_object() || !evaluation.contains(what) || !evaluation.at(what).is_number()) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  return evaluation.at(what).get<double>();
}

Curve curve_of(const json& epochs, const char* name, const char* which, const char* what, double scale) {
  Curve curve{name, {}, {}};
  for (const json& epoch : epochs) {
    const double value = epoch.contains(which) ? value_of(epoch.at(which), what) : value_of(nullptr, what);
    if (!std::isfinite(value)) continue;
    curve.x.push_back(epoch.at("steps").get<double>());
    curve.y.push_back(scale * value);
  }
  return curve;
}

/// What the log says last of where the run is: "epoch 3/10  step 50/391 (12%) ...", "epoch 3/10  loss ...".
std::string last_progress(const std::vector<std::string>& lines) {
  constexpr std::size_t clock_width = 20;  // "2026-01-31 12:00:00 "
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    const std::string text = line->size() > clock_width ? line->substr(clock_width) : "";
    if (text.starts_with("epoch ") || text.starts_with("proxy")) return text;
  }
  return "";
}

std::string state_text(const fs::path& run, const json& metrics, const std::vector<std::string>& lines) {
  if (is_running(run)) return "running";
  if (!metrics.is_null() && metrics.at("summary").contains("finished")) return "finished";
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) {
    if (line->find("stopped by SIG") != std::string::npos) return "stopped, saved";
    if (line->find("error: ") != std::string::npos)
      return "ended with an error: " + excerpt(line->substr(line->find("error: ")));
  }
  return "not running, not finished";
}

std::string mebibytes(const json& value) { return fmt::format("{:.0f} MiB", value.get<double>() / (1 << 20)); }

/// Rate over the last epochs and what is left, from the figures alone.
std::string rate_text(const json& epochs) {
  if (epochs.empty()) return "";
  const std::size_t last = epochs.size() - 1, first = last >= 5 ? last - 5 : 0;
  double seconds = 0.0;
  for (std::size_t e = first + (first == last ? 0 : 1); e <= last; ++e)
    seconds += epochs[e].at("seconds").get<double>();
  const double before = first == last ? 0.0 : epochs[first].at("examples_seen").get<double>();
  const double examples = epochs[last].at("examples_seen").get<double>() - before;
  return seconds > 0.0
             ? fmt::format("{} examples/s, selection and evaluation included", format_count(examples / seconds))
             : "";
}

void add_figures(std::string& page, const json& metrics, int columns, int lines, bool colour) {
  const json& epochs = metrics.at("epochs");
  const json& summary = metrics.at("summary");
  const auto line = [&](const std::string& name, const std::string& text) {
    if (!text.empty()) page += fmt::format("{:<13}{}\n", name, text);
  };
  line("rate", rate_text(epochs));
  if (summary.contains("host_peak_bytes")) {
    const auto& device = summary.at("device_peak_bytes");
    line("memory", fmt::format("{} host{}, at most in a rank", mebibytes(summary.at("host_peak_bytes")),
                               device.get<double>() > 0 ? ", " + mebibytes(device) + " GPU" : ""));
  }
  line("time", fmt::format("{}, of it {} selection", format_duration(summary.at("total_seconds").get<double>()),
                           format_duration(summary.at("selection_seconds").get<double>())));
  if (const json& selections = metrics.at("selections"); !selections.empty()) {
    const json& last = selections.back();
    std::string text = fmt::format("{}: kept {} of {} in {:.1f} s", last.at("method").get<std::string>(),
                                   last.at("kept").get<std::int64_t>(), last.at("candidates").get<std::int64_t>(),
                                   last.at("seconds").get<double>());
    if (const auto& bound = last.at("relative_certificate"); !bound.is_null()) {
      text += fmt::format(", error bound {:.2g} lambda_1", bound.get<double>());
    }
    line(fmt::format("selection {}", last.at("round").get<std::int64_t>()), text);
  }
  const int height = std::clamp((lines - 14) / 2, 4, 12);
  page += "\nloss, by steps\n";
  for (const auto& row : plot_curves(
           {curve_of(epochs, "train", "train", "loss", 1), curve_of(epochs, "validation", "validation", "loss", 1),
            curve_of(epochs, "test", "test", "loss", 1)},
           columns, height, colour)) {
    page += row + '\n';
  }
  page += "accuracy, %, by steps\n";
  for (const auto& row : plot_curves({curve_of(epochs, "train", "train", "accuracy", 100),
                                      curve_of(epochs, "validation", "validation", "accuracy", 100),
                                      curve_of(epochs, "test", "test", "accuracy", 100)},
                                     columns, height, colour)) {
    page += row + '\n';
  }
}

std::pair<int, int> terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {80, 40};
  return {size.ws_col, size.ws_row};
}

}  // namespace

std::string watch_page(const fs::path& run, int columns, int lines, bool colour) {
  if (!is_run_folder(run)) {
    throw CheckpointError(fmt::format("{}: no run folder of sage (no README.txt of one)", run.string()));
  }
  const json metrics = read_metrics(run);
  const auto log = log_lines(run);
  std::string page = fmt::format("{}  [{}]\n", run.string(), state_text(run, metrics, log));
  if (const std::string progress = last_progress(log); !progress.empty()) page += excerpt(progress, 300) + '\n';
  try {
    if (metrics.is_null() || metrics.at("epochs").empty()) {
      page += "no epoch has ended yet\n";
    } else {
      add_figures(page, metrics, std::min(columns, 120), lines, colour);
    }
  } catch (const json::exception& failure) {
    throw CheckpointError(
        fmt::format("{}: not one of this version ({})", (run / "metrics.json").string(), excerpt(failure.what(), 200)));
  }
  return page;
}

int watch_main(const WatchOptions& options) {
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const StopRequests watch;
  for (;;) {
    const auto [columns, lines] = terminal_size();
    const bool running = is_running(options.run);  // before the look: what is drawn last is then all
    const std::string page = watch_page(options.run, columns, lines, terminal);
    if (terminal && !options.once) fmt::print("\x1b[H\x1b[2J");
    fmt::print("{}", page);
    std::fflush(stdout);
    if (options.once || !terminal || !running) return 0;
    const auto next = std::chrono::steady_clock::now() + std::chrono::duration<double>(options.interval);
    while (std::chrono::steady_clock::now() < next) {
      if (StopRequests::count() > 0) return 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
}

}  // namespace sage
