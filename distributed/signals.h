// Signals that end this process, or ask it to end. One line each says which rank was hit, and where it stood.
#pragma once

namespace sage {

/// SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT: one line with rank, signal and whereabouts, then the signal's own
/// action, so that mpirun or srun sees the death and ends the job. After MPI's start, which installs handlers too.
void install_crash_report();

/// For threads of the program's own: signals are the main thread's business, but for those that a thread causes itself.
void block_signals();

/// The job is being aborted: from now on SIGTERM and SIGUSR1 end this process whoever looks at them, without a word;
/// one that has arrived already ends it now.
void end_at_stop_signals() noexcept;

/// Counts those who look at stop_signal(). While there is none, SIGTERM and SIGUSR1 end the process as they always do.
class StopSignalWatch {
 public:
  StopSignalWatch() noexcept;
  ~StopSignalWatch();
  StopSignalWatch(const StopSignalWatch&) = delete;
  StopSignalWatch& operator=(const StopSignalWatch&) = delete;
};

}  // namespace sage
