#include "data/byte_reader.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace sage {

ByteReader::ByteReader(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  if (std::filesystem::is_directory(path_, error)) {
    throw DataError(fmt::format("{}: a folder, where a file was expected", path_.string()));
  }
  errno = 0;
  const gzFile file = gzopen(path_.c_str(), "rb");
  if (file == nullptr) {
    throw DataError(fmt::format("{}: cannot be opened: {}", path_.string(), std::strerror(errno ? errno : ENOMEM)));
  }
  file_ = file;
  gzbuffer(file, 1u << 18);
  if (std::filesystem::file_size(path_, error) == 0 && !error) {
    gzclose(file);
    throw DataError(fmt::format("{}: the file is empty", path_.string()));
  }
}

ByteReader::~ByteReader() { gzclose(static_cast<gzFile>(file_)); }

std::size_t ByteReader::read(void* bytes, std::size_t count) {
  const auto file = static_cast<gzFile>(file_);
  std::size_t done = 0;
  while (done < count) {
    const auto piece = static_cast<unsigned>(std::min(count - done, std::size_t{1} << 30));
    const int got = gzread(file, static_cast<char*>(bytes) + done, piece);
    // zlib hands out what it could decompress of a cut stream and tells only through gzerror.
    int status = Z_OK;
    const char* text = gzerror(file, &status);
    if (got < 0 || status == Z_BUF_ERROR || status == Z_DATA_ERROR) {
      const bool cut = status == Z_BUF_ERROR;
      throw DataError(fmt::format("{}: the compressed data is {} after {} bytes{}", path_.string(),
                                  cut ? "cut short" : "damaged", static_cast<std::int64_t>(gztell(file)),
                                  cut ? std::string() : fmt::format(" ({})", text)));
    }
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

bool ByteReader::at_end() {
  const auto file = static_cast<gzFile>(file_);
  char byte = 0;
  if (read(&byte, 1) == 0) return true;
  gzungetc(static_cast<unsigned char>(byte), file);
  return false;
}

std::string read_all_bytes(const std::filesystem::path& path, std::size_t limit) {
  ByteReader reader(path);
  std::string content;
  constexpr std::size_t piece = std::size_t{1} << 16;
  for (;;) {
    const std::size_t old = content.size();
    content.resize(old + piece);
    const std::size_t got = reader.read(content.data() + old, piece);
    content.resize(old + got);
    if (content.size() > limit) {
      throw DataError(fmt::format("{}: longer than the {} bytes that such a file can have", path.string(), limit));
    }
    if (got < piece) return content;
  }
}

}  // namespace sage
