#include "launch/sweep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/text.h"
#include "data/registry.h"
#include "launch/sweep_export.h"
#include "launch/sweep_jobs.h"
#include "launch/sweep_slurm.h"
#include "models/registry.h"
#include "selection/registry.h"
#include "training/run_folder.h"

namespace sage {
namespace {

namespace fs = std::filesystem;

void check_options(const SweepOptions& o) {
  const auto exclude = [](bool a, const char* name_a, bool b, const char* name_b) {
    if (a && b) throw ConfigError(fmt::format("{} and {} exclude each other", name_a, name_b));
  };
  exclude(o.resume, "--resume", o.fresh, "--fresh");
  exclude(o.collect, "--collect", o.fresh, "--fresh");
  exclude(o.collect, "--collect", o.slurm, "--slurm");
  exclude(o.slurm, "--slurm", !o.gpus.empty(), "--gpus (say --sbatch=--gpus-per-task=1)");
  if (!o.sbatch.empty() && !o.slurm) throw ConfigError("--sbatch gives options to a job of Slurm: it needs --slurm");
}

/// A folder that holds something must be that of an earlier sweep of the same study.
void check_out(const Sweep& sweep) {
  std::error_code error;
  const fs::path& out = sweep.out;
  if (!fs::exists(fs::symlink_status(out, error))) return;
  if (!fs::is_directory(out, error)) throw ConfigError(fmt::format("--out {} is not a folder", out.string()));
  if (fs::directory_iterator(out, error) == fs::directory_iterator()) return;
  const fs::path mark = out / "study.json";
  if (!fs::is_regular_file(mark, error)) {
    throw ConfigError(
        fmt::format("--out {} is not empty and not the folder of a sweep (no study.json), so nothing is "
                    "written there; give another --out",
                    out.string()));
  }
  std::string name;
  try {
    name = parse_json<nlohmann::json>(read_file(mark, 1 << 26)).at("study").get<std::string>();
  } catch (const std::exception& failure) {
    throw ConfigError(
        fmt::format("{} is damaged ({}); give another --out", mark.string(), excerpt(failure.what(), 200)));
  }
  if (name != sweep.study.name) {
    throw ConfigError(fmt::format("--out {} holds the study `{}`, and this one is `{}`; give another --out",
                                  out.string(), excerpt(name), sweep.study.name));
  }
}

/// Names as `sage train` writes them into its run folder, whatever alias the study uses.
void settle_names(StudyRun& run) {
  try {
    run.config.data.name = dataset_format(run.config.data.name).name;
    run.config.model.name = find_model(run.config.model.name).name;
  } catch (const ConfigError& error) {
    throw ConfigError(fmt::format("run {}: {}", run.name, error.what()));
  }
}

/// Where this program lies. Asked once: when the file is built anew, /proc goes on naming the old one, as deleted.
fs::path own_program() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error || !fs::exists(program, error)) {
    throw EnvironmentError(fmt::format(
        "the program's own file is gone ({}), and the runs are made with it: start the command again with one that is "
        "there",
        error ? error.message() : program.string()));
  }
  return program;
}

Sweep make_sweep(const SweepOptions& options) {
  Sweep sweep;
  sweep.program = own_program();
  sweep.study = load_study(options.study, options.base, options.overrides);
  sweep.out = fs::absolute(options.out.empty() ? fs::path("runs") / sweep.study.name : fs::path(options.out))
                  .lexically_normal();
  check_out(sweep);
  for (const StudyRun& run : sweep.study.runs) {
    SweepRun placed{run,
                    sweep.out / run.name,
                    sweep.out / "configs" / (run.name + ".yaml"),
                    sweep.out / "logs" / (run.name + ".log"),
                    {}};
    placed.run.config.output_dir = placed.folder.string();
    settle_names(placed.run);
    placed.state = look_at_run(placed.folder, placed.run.config, options.ranks);
    sweep.runs.push_back(std::move(placed));
  }
  return sweep;
}

/// Names that only the registries know, before anything has run for hours. Not for lists of runs and tables.
void check_names(const Sweep& sweep) {
  for (const SweepRun& run : sweep.runs) {
    const Config& config = run.run.config;
    try {
      if (!config.selection.proxy.model.empty()) find_model(config.selection.proxy.model);
      find_selection_method(config.selection.method);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("run {}: {}", run.run.name, error.what()));
    }
  }
}

/// Refuses what would overwrite something, or be in somebody's way. Nothing has been written.
void check_folders(const Sweep& sweep, const SweepOptions& options) {
  std::string problems;
  int count = 0;
  for (const SweepRun& run : sweep.runs) {
    std::string problem;
    if (run.state.status == RunStatus::running) problem = run.state.reason;
    const bool may_replace = options.fresh && is_run_folder(run.folder);
    if (run.state.status == RunStatus::foreign && !may_replace) problem = run.state.reason;
    if (run.state.status == RunStatus::incomplete && !options.resume && !options.fresh) {
      problem = "it holds this run, incomplete: --resume goes on with it";
    }
    if (problem.empty()) continue;
    if (++count <= 10) problems += fmt::format("\n  {}: {}", run.folder.string(), problem);
  }
  if (count == 0) return;
  throw ConfigError(fmt::format(
      "{} of {} run folders stand in the way, and nothing was started:{}{}\n--resume goes on with incomplete runs, "
      "--fresh repeats all runs that are there, --out takes another folder",
      count, sweep.runs.size(), problems, count > 10 ? fmt::format("\n  and {} more", count - 10) : ""));
}

void print_plan(const Sweep& sweep, const SweepOptions& options) {
  for (const SweepRun& run : sweep.runs) fmt::print("{:<10} {}\n", to_string(run.state.status), run.run.name);
  std::size_t left = 0;
  for (const SweepRun& run : sweep.runs) left += options.fresh || run.state.status != RunStatus::finished ? 1 : 0;
  fmt::print("{} runs, {} to be made, in {}\n", sweep.runs.size(), left, sweep.out.string());
  if (options.slurm && left > 0) fmt::print("{}\n", fmt::join(sbatch_command(sweep, options, left), " "));
}

/// study.json, and the configuration of each run that is to be made.
void write_plan(const Sweep& sweep) {
  for (const char* folder : {"configs", "logs"}) make_folder(sweep.out / folder);
  nlohmann::ordered_json runs = nlohmann::ordered_json::array();
  for (const SweepRun& run : sweep.runs) {
    runs.push_back(run.run.name);
    write_file(run.config_file, to_yaml(run.run.config));
  }
  const nlohmann::ordered_json all{{"study", sweep.study.name}, {"title", sweep.study.title}, {"runs", runs}};
  write_file(sweep.out / "study.json", all.dump(1) + "\n");
}

void report(const Sweep& sweep) {
  write_tables(sweep);
  fmt::print("\n{}\n{}\n", sweep.study.title, table_text(sweep));
  fmt::print("tables: {}/summary_table.csv .tex, detailed_results.csv, all_results.json\n", sweep.out.string());
}

}  // namespace

int sweep_main(const SweepOptions& options) {
  check_options(options);
  Sweep sweep = make_sweep(options);
  if (options.dry_run) {
    print_plan(sweep, options);
    return 0;
  }
  if (options.collect) {
    if (!fs::is_directory(sweep.out)) {
      throw ConfigError(fmt::format("--collect: {} is not there: nothing of this study has run", sweep.out.string()));
    }
    report(sweep);
    return 0;
  }
  check_names(sweep);
  check_folders(sweep, options);
  options.slurm ? check_slurm(sweep) : check_machine(options);
  make_folder(sweep.out);
  const FolderLock lock(sweep.out);  // two sweeps in one folder would start each run twice
  write_plan(sweep);
  if (options.slurm) {
    const bool all_done = std::ranges::all_of(
        sweep.runs, [&](const SweepRun& run) { return !options.fresh && run.state.status == RunStatus::finished; });
    if (all_done) {
      report(sweep);
      return 0;
    }
    fmt::print(
        "submitted as job {}; when it has ended, the same command with --collect in the place of --slurm makes the "
        "tables of {}\n",
        submit_array(sweep, options), sweep.out.string());
    return 0;
  }
  const int status = run_jobs(sweep, options);
  report(sweep);
  return status;
}

}  // namespace sage
