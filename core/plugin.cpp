#include "core/plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

constexpr const char* library_name = "libsage_cuda.so";

struct Library {
  void* handle = nullptr;
  std::string path, why_not;
};

std::vector<std::filesystem::path> candidates() {
  if (const char* named = std::getenv("SAGE_CUDA_LIBRARY"); named != nullptr && *named != '\0') return {named};
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {};  // a bare name would be looked for in the working folder and along LD_LIBRARY_PATH
  const auto folder = program.parent_path();
  return {folder / library_name, folder.parent_path() / "lib" / library_name};
}

Library open_library() {
  Library library;
  std::string tried;
  for (const auto& path : candidates()) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
      tried += (tried.empty() ? "" : ", ") + path.string();
      continue;
    }
    library.path = path.string();
    library.handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library.handle != nullptr) return library;
    const char* text = dlerror();
    const std::string reason = text != nullptr ? text : "unknown reason";
    library.why_not = reason.find("libcuda.so") != std::string::npos
                          ? fmt::format("this machine has no NVIDIA driver ({})", reason)
                          : fmt::format("the CUDA part cannot be loaded: {}", reason);
    return library;
  }
  library.why_not = fmt::format(
      "the CUDA part of the program is not there (tried {}): build with SAGE_CUDA=ON and a CUDA LibTorch", tried);
  return library;
}

/// Loaded once; never unloaded, since LibTorch's CUDA libraries register themselves for the life of the process.
const Library& library() {
  static const Library opened = open_library();
  return opened;
}

}  // namespace

void* load_cuda_function(const char* name) {
  const Library& opened = library();
  if (opened.handle == nullptr) throw EnvironmentError(opened.why_not);
  void* function = dlsym(opened.handle, name);
  if (function == nullptr) {
    throw EnvironmentError(
        fmt::format("{} has no function '{}': it belongs to another version of the program", opened.path, name));
  }
  return function;
}

bool cuda_part_available() { return library().handle != nullptr; }

}  // namespace sage
