#include "distributed/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>

#include "core/whereabouts.h"
#include "distributed/agreement.h"
#include "distributed/mpi_api.h"

namespace sage {
namespace {

constexpr std::array crash_signals{SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

std::atomic<int> first_stop_signal{0};
std::atomic<int> watchers{0};
std::atomic<bool> job_is_aborted{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

/// "sage: [rank 1] signal ", or without the rank in a world of one; made when handlers are installed.
std::array<char, 64> line_start{};

void make_line_start() {
  int rank = 0, size = 1, started = 0;
  MPI_Initialized(&started);
  if (started != 0) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
  }
  const std::string text = size > 1 ? "sage: [rank " + std::to_string(rank) + "] signal " : "sage: signal ";
  text.copy(line_start.data(), line_start.size() - 1);
}

const char* name_of(int number) noexcept {
  switch (number) {
    case SIGTERM:
      return "15 (SIGTERM)";
    case SIGUSR1:
      return "10 (SIGUSR1)";
    case SIGSEGV:
      return "11 (SIGSEGV)";
    case SIGBUS:
      return "7 (SIGBUS)";
    case SIGFPE:
      return "8 (SIGFPE)";
    case SIGILL:
      return "4 (SIGILL)";
    case SIGABRT:
      return "6 (SIGABRT)";
    default:
      return "of unknown number";
  }
}

/// One write, so that lines of ranks do not mix. Async-signal-safe.
void write_line(int number, const char* what_follows) noexcept {
  char line[512];
  std::size_t length = 0;
  const auto add = [&](const char* text) {
    while (*text != '\0' && length + 1 < sizeof(line)) line[length++] = *text++;
  };
  char place[256];
  add(line_start.data());
  add(name_of(number));
  add(" arrived");
  if (whereabouts::write_to(place, sizeof(place)) > 0) {
    add(" at ");
    add(place);
  }
  add("; ");
  add(what_follows);
  line[length++] = '\n';
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line, length);
}

/// The signal's default action. It is blocked while its handler runs, and acts when that returns.
void act_by_default(int number) noexcept {
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void on_stop_signal(int number) {
  const int saved = errno;
  int none = 0;
  if (job_is_aborted.load()) {
    act_by_default(number);
  } else if (watchers.load() == 0) {
    write_line(number, "this rank ends");
    act_by_default(number);
  } else if (first_stop_signal.compare_exchange_strong(none, number)) {
    write_line(number, "to be saved and left at the next step, if all ranks come to it");
  }
  errno = saved;
}

void on_crash(int number) {
  write_line(number, "this rank ends");
  act_by_default(number);
}

void install(int number, void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  sigaction(number, &action, nullptr);
}

}  // namespace

void install_stop_signals() {
  make_line_start();
  for (const int number : {SIGTERM, SIGUSR1}) install(number, on_stop_signal, SA_RESTART);
}

int stop_signal() noexcept { return first_stop_signal.load(); }

void install_crash_report() {
  make_line_start();
  // The stack of this thread may be what ran out. Never freed: the handler may need it to the very end.
  constexpr std::size_t size = std::size_t{64} << 10;
  stack_t stack{};
  stack.ss_sp = new char[size];
  stack.ss_size = size;
  sigaltstack(&stack, nullptr);
  for (const int number : crash_signals) install(number, on_crash, SA_ONSTACK);
}

void end_at_stop_signals() noexcept {
  job_is_aborted = true;
  if (const int number = first_stop_signal.load()) ::kill(::getpid(), number);  // its handler looks again
}

void block_signals() {
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int number : crash_signals) sigdelset(&blocked, number);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
}

StopSignalWatch::StopSignalWatch() noexcept { watchers.fetch_add(1); }
StopSignalWatch::~StopSignalWatch() { watchers.fetch_sub(1); }

}  // namespace sage
