#include "data/tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "data/byte_reader.h"

namespace sage {
namespace {

constexpr std::size_t block_size = 512;
constexpr std::uint64_t most_bytes = std::uint64_t{4} << 30;
constexpr int most_entries = 10000;
constexpr std::ptrdiff_t most_levels = 16;                      // of folders
constexpr std::uint64_t most_note_bytes = 1 << 20;              // of a pax header
constexpr std::uint64_t most_padding = std::uint64_t{1} << 20;  // after the end mark: one record of the largest size
using Block = std::array<char, block_size>;

/// A field of the header up to its first zero byte.
std::string_view text_field(const Block& header, std::size_t offset, std::size_t length) {
  const std::string_view field(header.data() + offset, length);
  return field.substr(0, field.find('\0'));
}

/// Octal digits, between optional blanks. -1 if it is anything else.
std::int64_t octal_field(const Block& header, std::size_t offset, std::size_t length) {
  std::string_view field = text_field(header, offset, length);
  while (field.starts_with(' ')) field.remove_prefix(1);
  while (field.ends_with(' ')) field.remove_suffix(1);
  std::int64_t value = 0;
  for (const char c : field) {
    if (c < '0' || c > '7') return -1;
    value = value * 8 + (c - '0');
  }
  return field.empty() ? -1 : value;
}

/// Sum of all bytes with the checksum field itself read as blanks.
std::int64_t checksum(const Block& header) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < header.size(); ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
  }
  return sum;
}

std::string entry_name(const Block& header) {
  std::string name(text_field(header, 0, 100));
  if (text_field(header, 257, 5) == "ustar" && header[262] == '\0') {  // GNU's older form uses the prefix otherwise
    const std::string_view prefix = text_field(header, 345, 155);
    if (!prefix.empty()) name = std::string(prefix) + "/" + name;
  }
  return name;
}

bool is_safe(const std::filesystem::path& path) {
  return !path.empty() && path.is_relative() &&
         std::ranges::none_of(path, [](const std::filesystem::path& part) { return part == ".."; });
}

class Unpacker {
 public:
  Unpacker(const std::filesystem::path& archive, const std::filesystem::path& folder)
      : reader_(archive), folder_(folder) {}

  void run() {
    for (Block header{};;) {
      read_block(header);
      if (std::ranges::all_of(header, [](char c) { return c == '\0'; })) break;  // the end mark
      if (checksum(header) != octal_field(header, 148, 8)) fail("an entry's header is damaged");
      if (++entries_ > most_entries) fail("too many entries");
      unpack(header);
    }
    // Reading on to the end has zlib check the checksum of the whole.
    std::uint64_t padding = 0;
    for (Block rest{}; const std::size_t got = reader_.read(rest.data(), rest.size());) {
      if ((padding += got) > most_padding) fail("there is more data after the end mark");
    }
  }

 private:
  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError(fmt::format("{}: {}", reader_.path().string(), reason));
  }

  void read_block(Block& block) {
    if (reader_.read(block.data(), block.size()) < block.size()) fail("the archive is cut short");
  }

  void unpack(const Block& header) {
    const std::string entry = entry_name(header), name = excerpt(entry, 300);
    const std::int64_t size = octal_field(header, 124, 12);
    const char type = header[156];
    if (size < 0) fail(fmt::format("entry `{}`: its size is not a number", name));
    bytes_ += static_cast<std::uint64_t>(size);
    if (bytes_ > most_bytes) fail(fmt::format("entry `{}`: the content is larger than {} bytes", name, most_bytes));
    if (type == 'x' || type == 'g') {  // notes (times, owners) of the pax format
      if (static_cast<std::uint64_t>(size) > most_note_bytes)
        fail(fmt::format("entry `{}`: notes of {} bytes", name, size));
      copy_content(size, nullptr, name);
      return;
    }
    if (first_non_text(entry) != std::string::npos || entry.find_first_of("\t\n\r") != std::string::npos) {
      fail(fmt::format("entry `{}`: its name holds control characters or is not UTF-8: refused", name));
    }
    const std::filesystem::path relative = entry;
    if (!is_safe(relative)) fail(fmt::format("entry `{}` would lie outside of the folder: refused", name));
    if (std::distance(relative.begin(), relative.end()) > most_levels) {
      fail(fmt::format("entry `{}` lies deeper than {} folders: refused", name, most_levels));
    }
    const std::filesystem::path path = folder_ / relative;
    if (type == '5') {
      make_folder_of(name, path);
      return;
    }
    if (type != '0' && type != '\0') fail(fmt::format("entry `{}` is neither a file nor a folder: refused", name));
    make_folder_of(name, path.parent_path());
    // "x": fails if it exists already, so that no entry writes through what an earlier one made.
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wbx"), &std::fclose);
    if (!file) fail(fmt::format("entry `{}`: cannot be written: {}", name, std::strerror(errno)));
    copy_content(size, file.get(), name);
    if (std::fflush(file.get()) != 0) {
      throw EnvironmentError(fmt::format("{}: cannot be written: {}", path.string(), std::strerror(errno)));
    }
  }

  /// A file of the archive may stand where the folder has to be.
  void make_folder_of(const std::string& name, const std::filesystem::path& path) const {
    for (std::filesystem::path part = path; part.native().size() > folder_.native().size(); part = part.parent_path()) {
      std::error_code ignored;
      if (std::filesystem::is_regular_file(part, ignored)) {
        fail(fmt::format("entry `{}` takes the place of another one's file", name));
      }
    }
    make_folder(path);
  }

  /// Content is padded to whole blocks.
  void copy_content(std::int64_t size, std::FILE* file, const std::string& name) {
    std::vector<char> piece(block_size * 128);
    for (auto left = static_cast<std::uint64_t>(size); left > 0;) {
      const std::uint64_t padded = (left + block_size - 1) / block_size * block_size;
      const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(padded, piece.size()));
      if (reader_.read(piece.data(), wanted) < wanted) fail(fmt::format("entry `{}` is cut short", name));
      const auto useful = static_cast<std::size_t>(std::min<std::uint64_t>(left, wanted));
      if (file != nullptr && std::fwrite(piece.data(), 1, useful, file) < useful) {
        throw EnvironmentError(
            fmt::format("{}: cannot be written: {}", (folder_ / name).string(), std::strerror(errno)));
      }
      left -= useful;
    }
  }

  ByteReader reader_;
  std::filesystem::path folder_;
  std::uint64_t bytes_ = 0;
  int entries_ = 0;
};

}  // namespace

void unpack_tar_gz(const std::filesystem::path& archive, const std::filesystem::path& folder) {
  Unpacker(archive, folder).run();
}

}  // namespace sage
