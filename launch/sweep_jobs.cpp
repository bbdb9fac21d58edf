#include "launch/sweep_jobs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/text.h"
#include "launch/child_process.h"
#include "training/progress.h"

namespace sage {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto look_interval = std::chrono::milliseconds(20);
constexpr auto grace = std::chrono::seconds(5);  // between SIGTERM and SIGKILL, of a sweep that is told twice
constexpr int stopped_status = static_cast<int>(ExitStatus::stopped);

std::int64_t own_cores() {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  return sched_getaffinity(0, sizeof(mine), &mine) == 0 ? CPU_COUNT(&mine) : 1;
}

std::int64_t cores_of(const SweepOptions& options) { return options.cores > 0 ? options.cores : own_cores(); }

std::int64_t jobs_of(const SweepOptions& options) { return std::max<std::int64_t>(1, options.jobs); }

std::int64_t threads_of(const SweepOptions& options) {
  if (options.threads > 0) return options.threads;
  return std::max<std::int64_t>(1, cores_of(options) / (jobs_of(options) * options.ranks));
}

/// The last line of a log, for a message.
std::string last_line(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = in ? static_cast<std::streamoff>(in.tellg()) : 0;
  std::string text(static_cast<std::size_t>(std::min<std::streamoff>(size, 4096)), '\0');
  in.seekg(size - static_cast<std::streamoff>(text.size()));
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  // mpirun puts lines of its own behind the program's one message.
  const auto from = text.rfind("error: ");
  if (from != std::string::npos) return excerpt(text.substr(from, text.find('\n', from) - from), 300);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return excerpt(text.substr(text.rfind('\n') + 1), 300);
}

/// A run that is to be made, or made again.
struct Order {
  SweepRun* run = nullptr;
  bool is_retry = false;
};
struct Running {
  Order order;
  std::vector<std::string> gpus;
  Clock::time_point start;
};

class JobRunner {
 public:
  JobRunner(Sweep& sweep, const SweepOptions& options) : sweep_(sweep), options_(options), free_gpus_(options.gpus) {
    for (SweepRun& run : sweep_.runs) {
      if (options.fresh || run.state.status != RunStatus::finished) waiting_.push_back({&run, false});
    }
    total_ = waiting_.size();
  }

  int run() {
    const StopRequests watch;
    while (!running_.empty() || (!waiting_.empty() && StopRequests::count() == 0)) {
      while (!waiting_.empty() && StopRequests::count() == 0 &&
             running_.size() < static_cast<std::size_t>(jobs_of(options_))) {
        start(waiting_.front());
        waiting_.pop_front();
      }
      pass_on_stop_requests();
      const EndedChild ended = take_ended_child();
      if (ended.id == 0) {
        std::this_thread::sleep_for(look_interval);
      } else if (const auto found = running_.find(ended.id); found != running_.end()) {
        const Running done = found->second;
        running_.erase(found);
        finish(done, ended.status);
      }
    }
    if (was_cut_ || !waiting_.empty()) {
      log::info("stopped by a signal; to go on: the same command with --resume");
      return stopped_status;
    }
    return first_failure_;
  }

 private:
  void start(const Order& order) {
    if (find_program(sweep_.program.string()).empty()) {
      throw EnvironmentError(fmt::format(
          "{} is gone since the sweep began (is it being built anew?), so no further run can be started; runs "
          "that are going on save and leave. When it is back: the same command with --resume",
          sweep_.program.string()));
    }
    SweepRun& run = *order.run;
    run.state = look_at_run(run.folder, run.run.config, options_.ranks);
    ChildOrder child;
    child.log = run.log;
    child.environment["OMP_NUM_THREADS"] = fmt::to_string(threads_of(options_));
    Running running{order, {}, Clock::now()};
    if (!options_.gpus.empty()) {
      for (std::int64_t rank = 0; rank < options_.ranks; ++rank) {
        running.gpus.push_back(free_gpus_.back());
        free_gpus_.pop_back();
      }
      child.environment["CUDA_VISIBLE_DEVICES"] = fmt::format("{}", fmt::join(running.gpus, ","));
    }
    if (options_.ranks > 1) {
      child.command = {"mpirun", "-np", fmt::to_string(options_.ranks), "--bind-to", "none"};
      if (options_.oversubscribe) child.command.emplace_back("--oversubscribe");
    }
    child.command.push_back(sweep_.program.string());
    child.command.emplace_back("train");
    const bool goes_on = run.state.status == RunStatus::incomplete && (!options_.fresh || order.is_retry);
    if (goes_on && run.state.has_checkpoint) {
      child.command.insert(child.command.end(), {"--resume", run.folder.string()});
    } else {
      child.command.push_back(run.config_file.string());
      if (run.state.status != RunStatus::missing) child.command.emplace_back("--overwrite");
    }
    std::ofstream(run.log, std::ios::app) << fmt::format("$ {}\n", fmt::join(child.command, " "));
    running_.emplace(start_child(child), running);
  }

  void finish(const Running& done, int status) {
    free_gpus_.insert(free_gpus_.end(), done.gpus.begin(), done.gpus.end());
    SweepRun& run = *done.order.run;
    run.state = look_at_run(run.folder, run.run.config, options_.ranks);
    const double seconds = std::chrono::duration<double>(Clock::now() - done.start).count();
    if (options_.fresh && status != 0 && run.state.status == RunStatus::finished) {  // what was there before
      run.state.status = RunStatus::incomplete;
      run.state.figures.reset();
    }
    if (run.state.status == RunStatus::finished) {
      log::info("[{}/{}] {}: test accuracy {:.2f} %, {}", ++done_, total_, run.run.name,
                100 * run.state.figures->accuracy, format_duration(seconds));
      return;
    }
    if (StopRequests::count() > 0) {
      was_cut_ = true;
      log::info("{}: stopped (status {}{})", run.run.name, status, run.state.has_checkpoint ? ", saved" : "");
      return;
    }
    const std::string why = fmt::format("status {} after {}: {}; see {}", status, format_duration(seconds),
                                        last_line(run.log), run.log.string());
    // A wrong configuration stays wrong; anything else may have been the machine's fault.
    if (!done.order.is_retry && status != static_cast<int>(ExitStatus::configuration)) {
      log::warning("{}: {}; it is tried once more", run.run.name, why);
      waiting_.push_back({&run, true});
      return;
    }
    log::warning("[{}/{}] {}: FAILED, {}", ++done_, total_, run.run.name, why);
    if (first_failure_ == 0) first_failure_ = status == 0 ? static_cast<int>(ExitStatus::internal) : status;
  }

  void pass_on_stop_requests() {
    const int requests = StopRequests::count();
    if (requests == 0) return;
    if (passed_on_ == 0) {
      log::info("stopping: {} runs save and leave; once more ends them without saving", running_.size());
      for (const auto& [child, running] : running_) signal_child(child, SIGUSR1, false);
    } else if (requests > passed_on_ && !killed_at_) {
      for (const auto& [child, running] : running_) signal_child(child, SIGTERM, true);
      killed_at_ = Clock::now() + grace;
    }
    if (killed_at_ && Clock::now() > *killed_at_) {
      for (const auto& [child, running] : running_) signal_child(child, SIGKILL, true);
    }
    passed_on_ = requests;
  }

  Sweep& sweep_;
  const SweepOptions& options_;
  std::vector<std::string> free_gpus_;
  std::deque<Order> waiting_;
  std::map<pid_t, Running> running_;
  std::size_t total_ = 0, done_ = 0;
  int first_failure_ = 0, passed_on_ = 0;
  bool was_cut_ = false;  // a run that a signal has stopped
  std::optional<Clock::time_point> killed_at_;
};

}  // namespace

void check_machine(const SweepOptions& options) {
  const std::int64_t jobs = jobs_of(options), wanted = jobs * options.ranks;
  if (wanted > cores_of(options) && !options.oversubscribe) {
    throw ConfigError(fmt::format(
        "--jobs {} times --ranks {} are {} processes, and there are {} cores: give fewer, or --oversubscribe", jobs,
        options.ranks, wanted, cores_of(options)));
  }
  if (!options.gpus.empty() && wanted > static_cast<std::int64_t>(options.gpus.size())) {
    throw ConfigError(fmt::format("--jobs {} times --ranks {} are {} processes, and --gpus names {}: one for each rank",
                                  jobs, options.ranks, wanted, options.gpus.size()));
  }
  if (options.ranks == 1) return;
  if (find_program("mpirun").empty()) throw EnvironmentError("--ranks above 1 needs mpirun, which is not along PATH");
  const auto is_set = [](const char* name) { return std::getenv(name) != nullptr; };
  if (geteuid() == 0 && !(is_set("OMPI_ALLOW_RUN_AS_ROOT") && is_set("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"))) {
    throw EnvironmentError(
        "mpirun refuses to run as root: set OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or work as "
        "another user");
  }
}

int run_jobs(Sweep& sweep, const SweepOptions& options) { return JobRunner(sweep, options).run(); }

}  // namespace sage
