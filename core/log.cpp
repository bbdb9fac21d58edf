#include "core/log.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <mutex>
#include <string>

#include "core/error.h"

namespace sage::log {
namespace {

// The only process-wide state of the program: where messages go.
struct Sink {
  std::mutex mutex;
  int rank = 0;
  bool quiet = false;
  bool transient_shown = false;
  std::ofstream file;
};

Sink& sink() {
  static Sink instance;
  return instance;
}

std::string clock_text() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm parts{};
  localtime_r(&now, &parts);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday,
                     parts.tm_hour, parts.tm_min, parts.tm_sec);
}

void to_terminal(Sink& to, std::string_view text) {
  if (to.transient_shown) std::fputs("\r\x1b[K", stderr);
  to.transient_shown = false;
  fmt::print(stderr, "{}\n", text);
}

}  // namespace

void set_rank(int rank) { sink().rank = rank; }

void set_quiet(bool quiet) { sink().quiet = quiet; }

void open_file(const std::filesystem::path& path) {
  Sink& to = sink();
  const std::lock_guard lock(to.mutex);
  if (to.file.is_open()) to.file.close();
  to.file.clear();
  to.file.open(path, std::ios::app);
  if (!to.file) throw EnvironmentError(fmt::format("{}: cannot be opened for writing", path.string()));
}

void write(Level level, std::string_view text) {
  Sink& to = sink();
  if (to.rank != 0) return;
  const std::lock_guard lock(to.mutex);
  const std::string line = level == Level::warning ? fmt::format("warning: {}", text) : std::string(text);
  if (to.file.is_open()) to.file << clock_text() << ' ' << line << std::endl;
  if (level == Level::warning || !to.quiet) to_terminal(to, line);
}

void record(std::string_view text) {
  Sink& to = sink();
  const std::lock_guard lock(to.mutex);
  if (to.file.is_open()) to.file << clock_text() << ' ' << text << std::endl;
}

void every_rank(std::string_view text) {
  Sink& to = sink();
  const std::lock_guard lock(to.mutex);
  to_terminal(to, fmt::format("[rank {}] {}", to.rank, text));
}

void transient(std::string_view text) {
  Sink& to = sink();
  if (to.rank != 0 || to.quiet || !is_terminal()) return;
  const std::lock_guard lock(to.mutex);
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
  to.transient_shown = true;
}

bool is_terminal() { return isatty(STDERR_FILENO) == 1; }

}  // namespace sage::log
