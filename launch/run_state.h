// What a run folder holds of a run that is wanted: nothing, a part, or its result. Only looks.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"

namespace sage {

enum class RunStatus {
  missing,     ///< nothing there
  incomplete,  ///< begun with this configuration, and not at its end
  finished,    ///< with a final test result
  running,     ///< a process holds the folder
  foreign,     ///< something else: no run folder, another configuration or version, or damaged files
};
const char* to_string(RunStatus status);

/// The figures of a finished run; times in seconds, accuracies in [0, 1], memory in bytes.
struct RunFigures {
  double accuracy = 0.0, loss = 0.0;  ///< of the test split after the last step
  double total_seconds = 0.0;         ///< training, evaluation and selection
  double selection_seconds = 0.0;
  std::optional<double> cpu_seconds;  ///< of all threads of all ranks
  double effective_epochs = 0.0;      ///< back-propagated examples, in training sets
  std::optional<double> f1_macro;     ///< of the test split after the last step, in [0, 1]
  std::int64_t steps = 0, examples_seen = 0;
  std::int64_t host_peak_bytes = 0, device_peak_bytes = 0;  ///< of the rank that took most
  std::optional<std::int64_t> kept;                         ///< by the last selection
  std::optional<double> relative_certificate;               ///< of the last selection
  std::optional<std::int64_t> wrong_labels, wrong_labels_kept;
  std::int64_t ranks = 0;
  std::string revision;               ///< the commit that the program was built from
  std::vector<std::string> warnings;  ///< what makes it hard to compare with the others
};

struct RunState {
  RunStatus status = RunStatus::missing;
  std::string reason;  ///< foreign, running: why, for people
  bool has_checkpoint = false;
  std::optional<RunFigures> figures;  ///< finished
};

/// Looks at `folder` for a run of `config` (output_dir does not count). Never throws on what a file holds.
RunState look_at_run(const std::filesystem::path& folder, const Config& config, std::int64_t ranks);

}  // namespace sage
