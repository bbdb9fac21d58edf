#pragma once
#include "distributed/runtime.h"

namespace sage {

/// Reads the command line and runs the command that it names. ALL ranks, with the same arguments. Returns the exit
/// status; a wrong command line is a ConfigError.
int run_command_line(Runtime& runtime, int argc, char** argv);

}  // namespace sage
