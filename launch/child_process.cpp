#include "launch/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <system_error>

#include "core/error.h"

extern char** environ;  // NOLINT: POSIX names it so

namespace sage {
namespace {

constexpr std::array<int, 3> stop_signals = {SIGINT, SIGTERM, SIGUSR1};
volatile std::sig_atomic_t stop_requests = 0;
std::array<struct sigaction, stop_signals.size()> former_actions;

void count_stop_request(int) { stop_requests = stop_requests + 1; }

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (!changes.contains(std::string(text.substr(0, text.find('='))))) all.emplace_back(text);
  }
  for (const auto& [name, value] : changes) all.push_back(name + "=" + value);
  return all;
}

/// In the new process: async-signal-safe calls only. Does not return.
[[noreturn]] void become(const char* program, char* const* arguments, char* const* environment, int log, int input,
                         pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  if (getppid() != parent) _exit(127);  // it died before the line above
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (const int signal : stop_signals) sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(input, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execve(program, arguments, environment);
  constexpr std::string_view message = "sage sweep: the program cannot be executed\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, message.data(), message.size());
  _exit(127);
}

}  // namespace

std::filesystem::path find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return std::filesystem::path(::access(name.c_str(), X_OK) == 0 ? name : "");
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const auto end = std::min(rest.find(':'), rest.size());
    const std::filesystem::path file = std::filesystem::path(rest.substr(0, end)) / name;
    std::error_code error;
    if (std::filesystem::is_regular_file(file, error) && ::access(file.c_str(), X_OK) == 0) return file;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

pid_t start_child(const ChildOrder& order) {
  const std::filesystem::path program = find_program(order.command.front());
  if (program.empty()) {
    throw EnvironmentError(fmt::format("{}: not found along PATH, or not executable", order.command.front()));
  }
  std::vector<std::string> words = order.command, variables = environment_with(order.environment);
  const std::vector<char*> arguments = pointers(words), environment = pointers(variables);
  const int log = ::open(order.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) {
    throw EnvironmentError(
        fmt::format("{}: cannot be written ({})", order.log.string(), std::generic_category().message(errno)));
  }
  const int input = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) become(program.c_str(), arguments.data(), environment.data(), log, input, parent);
  const int error = errno;
  ::close(log);
  ::close(input);
  if (child < 0) {
    throw EnvironmentError(
        fmt::format("a process for {} cannot be made ({})", program.string(), std::generic_category().message(error)));
  }
  setpgid(child, child);  // also here: whoever comes first
  return child;
}

EndedChild take_ended_child() {
  int status = 0;
  const pid_t child = waitpid(-1, &status, WNOHANG);
  if (child <= 0) return {};
  return {child, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status)};
}

void signal_child(pid_t child, int signal, bool everyone) { ::kill(everyone ? -child : child, signal); }

StopRequests::StopRequests() {
  stop_requests = 0;
  struct sigaction count {};
  count.sa_handler = count_stop_request;
  for (std::size_t i = 0; i < stop_signals.size(); ++i) sigaction(stop_signals[i], &count, &former_actions[i]);
}

StopRequests::~StopRequests() {
  for (std::size_t i = 0; i < stop_signals.size(); ++i) sigaction(stop_signals[i], &former_actions[i], nullptr);
}

int StopRequests::count() noexcept { return stop_requests; }

}  // namespace sage
