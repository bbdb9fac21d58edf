// Sequential bytes of a plain or gzip-compressed file.
#pragma once
#include <cstddef>
#include <filesystem>
#include <string>

namespace sage {

/// Reads a file whose content may be gzip (RFC 1952): recognised by its first bytes, whatever the name says.
class ByteReader {
 public:
  /// Throws DataError naming the file and the system's reason if it cannot be opened, or if it is empty.
  explicit ByteReader(std::filesystem::path path);
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;
  ~ByteReader();

  /// Reads up to `count` bytes, fewer only at the end. Throws DataError if the compressed data is damaged or cut short.
  std::size_t read(void* bytes, std::size_t count);
  /// True if no byte is left.
  bool at_end();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  void* file_ = nullptr;  // gzFile
};

/// Whole (decompressed) content. Throws DataError if it is longer than `limit` bytes, so that a small damaged or
/// hostile file cannot take all memory.
std::string read_all_bytes(const std::filesystem::path& path, std::size_t limit);

}  // namespace sage
