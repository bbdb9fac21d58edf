// The one place where exceptions of a job end: one message, a non-zero exit everywhere, no rank left behind.
#pragma once
#include <functional>

#include "distributed/runtime.h"

namespace sage {

/// Runs `action` on this rank and returns the exit status of the program. ALL ranks; nothing of MPI may be used after
/// it but the end of the Runtime.
///
/// If an exception comes out of `action`, every rank ends with a non-zero status:
/// - ranks that fail with the same message print it once, by the lowest of them;
/// - a rank that fails alone, while others work or wait for it, prints its message and ends the job by MPI_Abort after
///   a second or so (rank 0 a little earlier than the others, which usually fail because of the same);
/// - PeerFailed prints nothing: the rank that caused it speaks;
/// - if all ranks come to their end, MPI is ended in order.
int run_guarded(Runtime& runtime, const std::function<int()>& action);

}  // namespace sage
