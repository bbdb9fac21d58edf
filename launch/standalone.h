// Commands that work alone, without MPI: `sage sweep` starts runs of its own, and `sage watch` looks on.
#pragma once
#include <functional>
#include <optional>

namespace CLI {
class App;
}

namespace sage {

/// Adds the commands to `app`, for its help; returns what runs the one that was named once `app` has parsed, or none.
std::function<std::optional<int>()> add_standalone_commands(CLI::App& app);

/// Runs such a command if the command line names one, before MPI starts, and returns its exit status; an error is
/// printed as one message. Under mpirun or srun with several ranks they are refused.
std::optional<int> run_standalone(int argc, char** argv);

}  // namespace sage
