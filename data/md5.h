// MD5 (RFC 1321): the checksum that data sets are published with. Not for security.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace sage {

class Md5 {
 public:
  void update(std::string_view bytes);
  /// 32 lower-case hexadecimal digits. No update() afterwards.
  std::string hex();

 private:
  void add_block(const unsigned char* block);
  std::array<std::uint32_t, 4> state_ = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  std::array<unsigned char, 64> buffer_{};
  std::uint64_t length_ = 0;
};

std::string md5_hex(std::string_view bytes);
/// Of a whole file, read in pieces. Throws DataError naming the file if it cannot be read.
std::string md5_of_file(const std::filesystem::path& path);

}  // namespace sage
