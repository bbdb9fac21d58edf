#include "training/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/log.h"

namespace sage {
namespace {

std::string reason(int error) { return std::generic_category().message(error); }

std::string holder_of(int descriptor) {
  char text[300] = {};
  const ssize_t length = ::pread(descriptor, text, sizeof(text) - 1, 0);
  return length > 0 ? std::string(text, static_cast<std::size_t>(length)) : "unknown process";
}

ConfigError in_use(const std::filesystem::path& folder, const std::string& holder) {
  return ConfigError(
      fmt::format("output_dir {} is in use by another run ({}); wait for its end, or give another output_dir",
                  folder.string(), holder));
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder) : path_(folder / "run.lock") {
  while (!try_lock()) {
  }
  if (descriptor_ < 0) return;
  char host[256] = "unknown host";
  gethostname(host, sizeof(host) - 1);
  const std::string holder = fmt::format("process {} on {}", getpid(), host);
  // For people only: the lock holds without it, also on a disk that is full.
  if (ftruncate(descriptor_, 0) != 0 || ::pwrite(descriptor_, holder.data(), holder.size(), 0) < 0) {
    log::warning("{}: cannot write ({})", path_.string(), reason(errno));
  }
}

/// False: try again, the file was removed meanwhile by a run that ended.
bool FolderLock::try_lock() {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw EnvironmentError(
        fmt::format("{}: cannot write ({}); check free space and permissions", path_.string(), reason(errno)));
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const std::string holder = holder_of(descriptor_);
    ::close(std::exchange(descriptor_, -1));
    if (error == EINTR) return false;
    if (error == EWOULDBLOCK) throw in_use(path_.parent_path(), holder);
    log::warning("{}: cannot be locked ({}); take care that no other run uses this folder", path_.string(),
                 reason(error));
    return true;
  }
  struct stat mine {
  }, there{};
  if (::fstat(descriptor_, &mine) == 0 && ::stat(path_.c_str(), &there) == 0 && mine.st_ino == there.st_ino)
    return true;
  ::close(std::exchange(descriptor_, -1));
  return false;
}

FolderLock::~FolderLock() {
  if (descriptor_ < 0) return;
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

FolderLock::FolderLock(FolderLock&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void refuse_if_in_use(const std::filesystem::path& folder) {
  const int descriptor = ::open((folder / "run.lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;
  // Shared: all ranks may ask at once.
  const bool is_held = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  const std::string holder = holder_of(descriptor);
  ::close(descriptor);
  if (is_held) throw in_use(folder, holder);
}

}  // namespace sage
