// The `sage` program: starts the runtime, reads the command line, runs one command, ends all ranks together.
#include <fmt/format.h>
#include <malloc.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include "core/log.h"
#include "distributed/agreement.h"
#include "distributed/run_guarded.h"
#include "distributed/runtime.h"
#include "distributed/signals.h"
#include "launch/command_line.h"
#include "launch/standalone.h"

namespace {

/// Activations come and go by the megabyte in each step; given back to the system each time, their pages would be
/// cleared and mapped anew each time, which costs a quarter of the time of a step.
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

}  // namespace

int main(int argc, char** argv) {
  // A file-size limit then shows as an error of the write, with a message, instead of ending the program.
  std::signal(SIGXFSZ, SIG_IGN);
  if (const auto status = sage::run_standalone(argc, argv)) return *status;
  keep_freed_memory();
  try {
    sage::Runtime runtime;
    sage::log::set_rank(runtime.rank());
    sage::install_crash_report();
    sage::install_stop_signals();
    return sage::run_guarded(runtime, [&] { return sage::run_command_line(runtime, argc, argv); });
  } catch (const std::exception& error) {  // the runtime itself could not start
    fmt::print(stderr, "sage: {}\n", error.what());
    return 1;
  }
}
