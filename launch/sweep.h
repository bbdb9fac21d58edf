// `sage sweep`: runs a study, here or under Slurm, and gathers its results.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "launch/run_state.h"
#include "launch/study.h"

namespace sage {

struct SweepOptions {
  std::string study, base;             ///< files; base: in the place of the study's own, where given
  std::vector<std::string> overrides;  ///< key=value for all runs
  std::string out;                     ///< empty: runs/<study's name>
  std::int64_t jobs = 0;               ///< runs at a time; 0: one here, all under Slurm
  std::int64_t ranks = 1;              ///< of each run
  std::int64_t cores = 0;              ///< that all runs together may use; 0: those of this process
  std::int64_t threads = 0;            ///< of each rank; 0: cores / (jobs x ranks)
  std::vector<std::string> gpus;       ///< ids that are shared out, one for each rank; empty: none
  bool oversubscribe = false;          ///< more ranks than cores
  bool resume = false;                 ///< go on with runs that were begun
  bool fresh = false;                  ///< repeat runs that are there
  bool dry_run = false;                ///< list the runs and stop
  bool collect = false;                ///< run nothing, write the tables
  bool slurm = false;                  ///< submit a job array
  std::vector<std::string> sbatch;     ///< its further options
};

/// A run of the study in its place.
struct SweepRun {
  StudyRun run;
  std::filesystem::path folder, config_file, log;  ///< absolute
  RunState state;
};

/// Where everything of a sweep lies: <out>/<run name>/ (run folders), configs/, logs/, slurm/ and the tables.
struct Sweep {
  Study study;
  std::filesystem::path program;  ///< that makes the runs: this one, by the name that it had at the start
  std::filesystem::path out;
  std::vector<SweepRun> runs;
};

/// Returns the exit status: 0 where all runs are finished, 8 where a signal stopped it, else that of the first run that
/// failed. Throws ConfigError on what cannot be run, before anything is written or started.
int sweep_main(const SweepOptions& options);

}  // namespace sage
