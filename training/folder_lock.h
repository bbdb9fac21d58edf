// One run in one folder.
#pragma once
#include <filesystem>

namespace sage {

/// Holds `run.lock` in a folder (flock) as long as it lives. The system lets go of it when the process ends, however it
/// ends; the file that is then left means nothing.
class FolderLock {
 public:
  /// Throws ConfigError naming the folder, the process and its host where another run holds it, EnvironmentError where
  /// the file cannot be made. On a file system without locks there is a warning, and no lock.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;

 private:
  bool try_lock();
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Throws ConfigError as FolderLock does where a run holds the folder; changes nothing there.
void refuse_if_in_use(const std::filesystem::path& folder);

}  // namespace sage
