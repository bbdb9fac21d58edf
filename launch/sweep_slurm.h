// The runs of a sweep as a job array of Slurm.
#pragma once
#include "launch/sweep.h"

namespace sage {

/// Throws EnvironmentError where this machine has no Slurm, ConfigError where a job of this sweep is in the queue yet.
void check_slurm(const Sweep& sweep);

/// What sbatch is called with.
std::vector<std::string> sbatch_command(const Sweep& sweep, const SweepOptions& options, std::size_t tasks);

/// Writes OUT/slurm/array.sbatch and runs.txt for all that is not finished and submits them. Returns the job's id.
/// Throws EnvironmentError with what sbatch said if it refuses.
std::string submit_array(const Sweep& sweep, const SweepOptions& options);

}  // namespace sage
