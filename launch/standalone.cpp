#include "launch/standalone.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <thread>

#include "core/error.h"
#include "launch/sweep.h"
#include "launch/watch.h"

namespace sage {
namespace {

/// Another process prints the message.
struct Silent {
  int status = 0;
};

CLI::App* add_sweep(CLI::App& app, SweepOptions& options) {
  auto* sweep = app.add_subcommand("sweep", "run all runs of a study, here or under Slurm, and make its tables");
  sweep->add_option("study", options.study, "STUDY.yaml (configs/studies has some)")->required();
  sweep->add_option("overrides", options.overrides, "key=value for all runs, for example data.path=/data");
  sweep->add_option("--base", options.base, "configuration file in the place of the study's `base`");
  sweep->add_option("--out", options.out, "folder of the run folders and tables (default runs/<study>)");
  sweep->add_option("--jobs", options.jobs, "runs at a time (default 1; --slurm: all)")->check(CLI::Range(1, 4096));
  sweep->add_option("--ranks", options.ranks, "MPI ranks of each run (default 1)")->check(CLI::Range(1, 65536));
  sweep->add_option("--cores", options.cores, "cores for all runs together (default: all)")
      ->check(CLI::Range(1, 65536));
  sweep->add_option("--threads", options.threads, "compute threads of each rank (default: cores / processes)")
      ->check(CLI::Range(1, 65536));
  sweep->add_option("--gpus", options.gpus, "GPU ids that the runs share, one for each rank: 0,1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false);  // one word; what follows is an override
  sweep->add_flag("--oversubscribe", options.oversubscribe, "allow more processes than cores");
  sweep->add_flag("--resume", options.resume, "go on with runs that were begun");
  sweep->add_flag("--fresh", options.fresh, "repeat the runs that are there, replacing them");
  sweep->add_flag("--dry-run", options.dry_run, "list the runs and how they stand, and stop");
  sweep->add_flag("--collect", options.collect, "run nothing: make the tables of what is there");
  sweep->add_flag("--slurm", options.slurm, "submit a job array instead of running here");
  sweep
      ->add_option("--sbatch", options.sbatch, "--slurm: an option for sbatch, as --sbatch=--partition=gpu; may repeat")
      ->expected(1)
      ->take_all();
  return sweep;
}

CLI::App* add_watch(CLI::App& app, WatchOptions& options) {
  auto* watch = app.add_subcommand("watch", "a run in the terminal: curves, rate, remaining time, memory");
  watch->add_option("run", options.run, "run folder")->required();
  watch->add_option("--interval", options.interval, "seconds between looks (default 2)")
      ->check(CLI::Range(0.1, 3600.0));
  watch->add_flag("--once", options.once, "one picture (as where the output is no terminal)");
  return watch;
}

/// The rank of this process where an MPI launcher has started several.
std::optional<int> rank_among_several() {
  const auto value_of = [](const char* name) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::optional(std::atoi(text)) : std::nullopt;
  };
  if (value_of("OMPI_COMM_WORLD_SIZE").value_or(1) > 1) return value_of("OMPI_COMM_WORLD_RANK").value_or(0);
  if (value_of("PMIX_RANK") && value_of("SLURM_STEP_NUM_TASKS").value_or(1) > 1) return value_of("PMIX_RANK");
  return std::nullopt;
}

/// One of several speaks; the others leave it the time for that, since the launcher ends all with the first.
void refuse_several(std::string_view command) {
  const auto rank = rank_among_several();
  if (!rank) return;
  const ConfigError error(fmt::format("`sage {}` works alone: start it without mpirun or srun", command));
  if (*rank == 0) throw error;
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  throw Silent{static_cast<int>(error.status())};
}

}  // namespace

std::function<std::optional<int>()> add_standalone_commands(CLI::App& app) {
  const auto sweep = std::make_shared<SweepOptions>();
  const auto watch = std::make_shared<WatchOptions>();
  const CLI::App* sweep_command = add_sweep(app, *sweep);
  const CLI::App* watch_command = add_watch(app, *watch);
  return [=]() -> std::optional<int> {
    if (*sweep_command) return sweep_main(*sweep);
    if (*watch_command) return watch_main(*watch);
    return std::nullopt;
  };
}

std::optional<int> run_standalone(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name != "sweep" && name != "watch") return std::nullopt;
  CLI::App app("", "sage");
  const auto run = add_standalone_commands(app);
  try {
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& wanted) {  // --help
      return app.exit(wanted);
    } catch (const CLI::ParseError& error) {
      throw ConfigError(fmt::format("{}; see `sage {} --help`", error.what(), name));
    }
    refuse_several(name);
    return run();
  } catch (const Silent& silent) {
    return silent.status;
  } catch (const Error& error) {
    fmt::print(stderr, "sage: error: {}\n", error.what());
    return static_cast<int>(error.status());
  } catch (const std::exception& error) {
    fmt::print(stderr, "sage: internal error: {}\n", error.what());
    return static_cast<int>(ExitStatus::internal);
  }
}

}  // namespace sage
