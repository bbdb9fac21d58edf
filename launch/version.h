#pragma once
#include <string>

namespace sage {

/// A line each for sage, LibTorch, CUDA, NCCL and MPI.
std::string version_text();

}  // namespace sage
