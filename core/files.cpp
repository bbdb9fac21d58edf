#include "core/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <system_error>

#include <fmt/format.h>

#include "core/error.h"

namespace sage {
namespace {

EnvironmentError failed(const std::filesystem::path& path, const char* action, int error) {
  return EnvironmentError(fmt::format("{}: cannot {} ({}); check free space and permissions", path.string(), action,
                                      std::generic_category().message(error)));
}

/// Owner of a file descriptor; a file that was not kept is removed again.
class AsideFile {
 public:
  explicit AsideFile(std::filesystem::path path) : path_(std::move(path)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor_ < 0) throw failed(path_, "write", errno);
  }
  AsideFile(const AsideFile&) = delete;
  AsideFile& operator=(const AsideFile&) = delete;
  ~AsideFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!kept_) ::unlink(path_.c_str());
  }
  void append(const void* bytes, std::size_t count) {
    const char* at = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t written = ::write(descriptor_, at, count);
      if (written < 0) {
        if (errno == EINTR) continue;
        throw failed(path_, "write", errno);
      }
      at += written;
      count -= static_cast<std::size_t>(written);
    }
  }
  void publish(const std::filesystem::path& as) {
    if (::fsync(descriptor_) != 0) throw failed(path_, "sync", errno);
    const int descriptor = descriptor_;
    descriptor_ = -1;
    if (::close(descriptor) != 0) throw failed(path_, "close", errno);
    if (::rename(path_.c_str(), as.c_str()) != 0) throw failed(as, "rename into place", errno);
    kept_ = true;
  }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  bool kept_ = false;
};

void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw failed(folder, "open", errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some file systems do not sync folders; they say EINVAL and there is nothing more to do.
  if (result != 0 && error != EINVAL) throw failed(folder, "sync", error);
}

}  // namespace

void write_file(const std::filesystem::path& path, const std::function<void(const AppendBytes&)>& write) {
  std::filesystem::path aside = path;
  aside += fmt::format(".{}.tmp", ::getpid());
  AsideFile file(aside);
  // Small pieces are gathered; large ones go straight through.
  std::string buffer;
  constexpr std::size_t buffer_size = 1 << 16;
  write([&](const void* bytes, std::size_t count) {
    if (buffer.size() + count > buffer_size) {
      file.append(buffer.data(), buffer.size());
      buffer.clear();
    }
    if (count > buffer_size) {
      file.append(bytes, count);
    } else {
      buffer.append(static_cast<const char*>(bytes), count);
    }
  });
  file.append(buffer.data(), buffer.size());
  file.publish(path);
  sync_folder(path.parent_path());
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  write_file(path, [&](const AppendBytes& append) { append(content.data(), content.size()); });
}

std::string read_file(const std::filesystem::path& path, std::size_t limit) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) throw EnvironmentError(fmt::format("{}: cannot be read ({})", path.string(), error.message()));
  if (size > limit) {
    throw EnvironmentError(fmt::format("{}: {} bytes, but at most {} are expected here", path.string(), size, limit));
  }
  std::ifstream in(path, std::ios::binary);
  std::string content(size, '\0');
  in.read(content.data(), static_cast<std::streamsize>(size));
  if (!in) throw EnvironmentError(fmt::format("{}: cannot be read to its end", path.string()));
  return content;
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) throw EnvironmentError(fmt::format("{}: cannot be made ({})", path.string(), error.message()));
}

}  // namespace sage
