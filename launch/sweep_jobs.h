// The runs of a sweep as processes on this machine.
#pragma once
#include "launch/sweep.h"

namespace sage {

/// Checks that this machine can run what `options` asks for. Throws ConfigError or EnvironmentError.
void check_machine(const SweepOptions& options);

/// Runs all of `sweep` that is not finished, `jobs` at a time, and retries once what fails. At the first SIGINT,
/// SIGTERM or SIGUSR1 starts nothing new and has all runs save and leave; at a second one ends them. The states of the
/// runs are up to date afterwards. Returns the exit status.
int run_jobs(Sweep& sweep, const SweepOptions& options);

}  // namespace sage
