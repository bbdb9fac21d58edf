// The `sage` program: starts the runtime, reads the command line, runs one command, ends all ranks together.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <exception>

#include "core/log.h"
#include "distributed/run_guarded.h"
#include "distributed/runtime.h"
#include "launch/command_line.h"

int main(int argc, char** argv) {
  // A file-size limit then shows as an error of the write, with a message, instead of ending the program.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    sage::Runtime runtime;
    sage::log::set_rank(runtime.rank());
    return sage::run_guarded(runtime, [&] { return sage::run_command_line(runtime, argc, argv); });
  } catch (const std::exception& error) {  // the runtime itself could not start
    fmt::print(stderr, "sage: {}\n", error.what());
    return 1;
  }
}
