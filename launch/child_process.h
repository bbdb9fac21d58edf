// Programs that are started, watched and ended in order.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace sage {

struct ChildOrder {
  std::vector<std::string> command;                ///< the program (found along PATH) and its arguments
  std::map<std::string, std::string> environment;  ///< on top of this process's own
  std::filesystem::path log;                       ///< appended to, standard output and error
};

/// Starts a program in a process group of its own, so that a Ctrl-C at the terminal does not reach it, without
/// input. It gets SIGUSR1 (save and leave) if this process dies. Throws EnvironmentError if it cannot be started.
pid_t start_child(const ChildOrder& order);

/// A child that has ended, if any has: its id (0: none), and its exit status, 128 + n where signal n ended it.
struct EndedChild {
  pid_t id = 0;
  int status = 0;
};
EndedChild take_ended_child();

/// Sends a signal to a child; to its whole group with `everyone`.
void signal_child(pid_t child, int signal, bool everyone);

/// The first file called `name` along PATH that may be executed; empty if there is none.
std::filesystem::path find_program(const std::string& name);

/// SIGINT, SIGTERM and SIGUSR1 are counted while it lives, instead of ending this process.
class StopRequests {
 public:
  StopRequests();
  ~StopRequests();
  StopRequests(const StopRequests&) = delete;
  StopRequests& operator=(const StopRequests&) = delete;
  static int count() noexcept;
};

}  // namespace sage
