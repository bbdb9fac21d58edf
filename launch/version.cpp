#include "launch/version.h"

#include <fmt/format.h>

#include "training/job.h"

namespace sage {

std::string version_text() {
  std::string text;
  for (const char* name : {"sage", "libtorch", "mpi", "cuda", "cuda_driver", "nccl"}) {
    const auto versions = all_versions();
    const auto found = versions.find(name);
    text += fmt::format("{:<12} {}\n", name, found == versions.end() ? "not available" : found->second);
  }
  return text;
}

}  // namespace sage
