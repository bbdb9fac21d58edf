// Messages for people. Rank 0 speaks for all; errors are thrown, not logged. Lines go to standard error and, once a run
// folder exists, to its training.log as well.
#pragma once
#include <fmt/format.h>

#include <filesystem>
#include <string_view>

namespace sage::log {

/// Called once per process after the rank is known. Other ranks than 0 then print nothing but `every_rank` messages.
void set_rank(int rank);
/// Copies every later message into `path` (appended). Rank 0 only.
void open_file(const std::filesystem::path& path);
/// Lines of less than warning level are left out of the terminal (not of the file).
void set_quiet(bool quiet);

enum class Level { info, warning };
void write(Level level, std::string_view text);
/// To the file alone, where one is open: what somebody else prints.
void record(std::string_view text);
/// Printed by any rank, with its number.
void every_rank(std::string_view text);
/// Prints on the terminal only; a line that a later call overwrites (progress). Does nothing off a terminal.
void transient(std::string_view text);
bool is_terminal();

template <class... Arguments>
void info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::info, fmt::format(format, std::forward<Arguments>(arguments)...));
}
template <class... Arguments>
void warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  write(Level::warning, fmt::format(format, std::forward<Arguments>(arguments)...));
}

}  // namespace sage::log
