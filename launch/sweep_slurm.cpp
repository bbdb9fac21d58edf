#include "launch/sweep_slurm.h"

#include <fmt/format.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>

#include "array_script.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "launch/child_process.h"

namespace sage {
namespace {

struct Answer {
  int status = 0;
  std::string text;  // standard output and error
};

/// Runs a command of Slurm to its end; its output goes through `log`.
Answer ask(const std::vector<std::string>& command, const std::filesystem::path& log,
           const std::map<std::string, std::string>& environment = {}) {
  std::error_code error;
  std::filesystem::remove(log, error);
  start_child({command, environment, log});
  EndedChild ended;
  while ((ended = take_ended_child()).id == 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::string text = read_file(log);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return {ended.status, text};
}

bool is_wanted(const SweepRun& run, const SweepOptions& options) {
  return options.fresh || run.state.status != RunStatus::finished;
}

}  // namespace

void check_slurm(const Sweep& sweep) {
  if (find_program("sbatch").empty()) {
    throw EnvironmentError(
        "--slurm: this machine has no Slurm (no sbatch along PATH); without --slurm the runs are made here");
  }
  const auto job_file = sweep.out / "slurm" / "job.txt";
  if (!std::filesystem::is_regular_file(job_file)) return;
  std::string job = read_file(job_file, 4096);
  job.erase(job.find_last_not_of(" \n") + 1);
  const Answer answer = ask({"squeue", "--noheader", "--jobs", job}, sweep.out / "slurm" / "squeue.log");
  if (answer.status == 0 && !answer.text.empty()) {  // an unknown job is an error of squeue
    throw ConfigError(
        fmt::format("--slurm: job {} of this sweep is in the queue yet; wait for its end, or `scancel {}`",
                    excerpt(job), excerpt(job)));
  }
}

std::vector<std::string> sbatch_command(const Sweep& sweep, const SweepOptions& options, std::size_t tasks) {
  const std::string limit = options.jobs > 0 ? fmt::format("%{}", options.jobs) : "";
  std::vector<std::string> command = {"sbatch",
                                      "--parsable",
                                      fmt::format("--job-name={}", sweep.study.name),
                                      fmt::format("--array=0-{}{}", tasks - 1, limit),
                                      fmt::format("--ntasks={}", options.ranks),
                                      fmt::format("--cpus-per-task={}", std::max<std::int64_t>(1, options.threads)),
                                      fmt::format("--output={}", (sweep.out / "logs" / "slurm-%A_%a.log").string())};
  command.insert(command.end(), options.sbatch.begin(), options.sbatch.end());
  command.push_back((sweep.out / "slurm" / "array.sbatch").string());
  command.push_back(sweep.out.string());
  return command;
}

std::string submit_array(const Sweep& sweep, const SweepOptions& options) {
  std::string list;
  std::size_t tasks = 0;
  for (const SweepRun& run : sweep.runs) {
    if (!is_wanted(run, options)) continue;
    const bool is_new = run.state.status == RunStatus::missing;
    list += fmt::format("{} {}\n", run.run.name, is_new ? "new" : options.fresh ? "overwrite" : "resume");
    ++tasks;
  }
  const auto folder = sweep.out / "slurm";
  make_folder(folder);
  write_file(folder / "runs.txt", list);
  write_file(folder / "array.sbatch", array_script);
  const Answer answer =
      ask(sbatch_command(sweep, options, tasks), folder / "sbatch.log", {{"SAGE", sweep.program.string()}});
  if (answer.status != 0) {
    throw EnvironmentError(
        fmt::format("sbatch refuses the job (status {}): {}", answer.status, excerpt(answer.text, 500)));
  }
  const std::string job = answer.text.substr(0, answer.text.find(';'));  // JOB;CLUSTER on some
  write_file(folder / "job.txt", job + "\n");
  return job;
}

}  // namespace sage
