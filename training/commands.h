// What the program's commands do, apart from reading the command line.
#pragma once
#include <string>
#include <vector>

#include "core/config_source.h"
#include "distributed/runtime.h"
#include "training/job.h"

namespace sage {

/// What a command will work with: `source`, or with `resume` (a run folder or checkpoint; may be empty) and no
/// configuration file that run's own configuration with the settings of `source` on top.
Config resolve_config(const ConfigSource& source, const std::string& resume);

struct TrainOptions {
  /// Run folder or checkpoint; empty: start anew. Without a CONFIG.yaml the run's own configuration goes on.
  std::string resume;
  bool overwrite = false;  ///< replace the run that output_dir holds
  bool dry_run = false;    ///< print the plan and stop
  bool profile = false;    ///< output.profile
  std::vector<std::string> command_line;
};

struct SelectOptions {
  std::string checkpoint;  ///< weights that score; empty: a fresh network, or the proxy of the configuration
  bool overwrite = false;
  bool profile = false;  ///< output.profile
  std::vector<std::string> command_line;
};

/// Names in the place of aliases, so that a run is known by one name. Throws ConfigError for unknown ones.
void settle_names(Config& config);
/// ALL ranks. A launcher can start ranks with different arguments or files; what they would do together has no meaning:
/// then this throws ConfigError.
void expect_one_configuration(const Job& job, const Config& config);

/// Each returns the exit status. ALL ranks.
int train_command_main(Runtime& runtime, const ConfigSource& source, const TrainOptions& options);
int select_command_main(Runtime& runtime, const ConfigSource& source, const SelectOptions& options);
/// Configuration and data set are those of the checkpoint, with `overrides` on top.
int evaluate_command_main(Runtime& runtime, const std::string& checkpoint, const std::vector<std::string>& overrides);

}  // namespace sage
