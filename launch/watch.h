// `sage watch`: a run in the terminal, while it goes on and after. Reads its folder only.
#pragma once
#include <filesystem>
#include <string>

namespace sage {

struct WatchOptions {
  std::string run;        ///< run folder
  double interval = 2.0;  ///< seconds between looks
  bool once = false;      ///< one picture
};

/// One picture of the run for a terminal of this size: how it stands, rate, remaining time, memory, selections, curves.
/// Throws CheckpointError where the folder is none of a run, or its figures are damaged.
std::string watch_page(const std::filesystem::path& run, int columns, int lines, bool colour);

/// Draws until the run has ended or a signal comes; once where there is no terminal. Returns the exit status.
int watch_main(const WatchOptions& options);

}  // namespace sage
