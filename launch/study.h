// A study: one YAML file that stands for many runs. Read strictly and expanded to runs with stable names.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/config.h"

namespace sage {

struct StudyRun {
  std::string name;     ///< <group>-<variant>-seed<k>: names the run's folder, the same whatever else is in the study
  std::string group;    ///< of the study's file
  std::string variant;  ///< all that sets it apart from others of its group but the seed
  std::vector<std::pair<std::string, std::string>> choices;  ///< for each axis of the group: its name, what was chosen
  std::int64_t seed = 0;
  Config config;
};

struct Study {
  std::string name;   ///< `name`, or the file's name
  std::string title;  ///< `title`, or the name
  std::vector<StudyRun> runs;
};

/// Reads `file` and expands it; `overrides` (key=value) go to all runs, last. output_dir stays empty. Throws
/// ConfigError with file and line on unknown keys, empty grids, values that do not fit, and names that collide.
/// `base` replaces the study's own base; empty: it does not.
Study load_study(const std::filesystem::path& file, const std::filesystem::path& base,
                 std::span<const std::string> overrides);

}  // namespace sage
