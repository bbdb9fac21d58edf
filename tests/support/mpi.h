// For tests that run on several ranks: files named *_mpi_test.cpp, linked with tests/mpi_main.cpp. Every rank runs
// every test in the same order, so a test must not return early (ASSERT_*) on one rank alone between two collectives.
#pragma once
#include "distributed/communicator.h"
#include "distributed/process_group_communicator.h"
#include "distributed/runtime.h"

namespace sage {

/// The communicator of all ranks on the CPU.
Communicator& world();
/// The runtime of this process, for tests that make communicators of their own.
Runtime& runtime();

}  // namespace sage
