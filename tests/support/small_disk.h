// A disk that fills up.
#pragma once
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>

#include "support/temporary_folder.h"

namespace sage::testing {

/// A folder on a file system of `bytes` of its own, where this process may mount one; elsewhere a folder in which no
/// file can grow past so much.
class SmallDisk {
 public:
  SmallDisk(std::filesystem::path path, std::size_t bytes) : path_(std::move(path)) {
    std::filesystem::create_directories(path_);
    const std::string size = "size=" + std::to_string(bytes);
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, size.c_str()) == 0;
    if (!mounted_) limit_ = std::make_unique<FullDisk>(bytes);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool mounted_ = false;
  std::unique_ptr<FullDisk> limit_;
};

}  // namespace sage::testing
