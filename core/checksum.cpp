#include "core/checksum.h"

#include <array>
#include <bit>
#include <cstring>

namespace sage {
namespace {

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

/// Table 0 advances the remainder by one byte; table t by one byte followed by t zero bytes, so that eight bytes are
/// taken at once ("slicing by 8", Kounavis and Berry, 2005).
constexpr Tables make_tables() {
  constexpr std::uint32_t kReflectedPolynomial = 0x82F63B78;
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t remainder = byte;
    for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) ? kReflectedPolynomial : 0);
    tables[0][byte] = remainder;
  }
  for (std::size_t t = 1; t < 8; ++t) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[t - 1][byte];
      tables[t][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}
constexpr Tables kTables = make_tables();

}  // namespace

std::uint32_t crc32c(const void* bytes, std::size_t count, std::uint32_t previous) {
  static_assert(std::endian::native == std::endian::little, "the eight-byte step below reads little-endian words");
  const auto* at = static_cast<const unsigned char*>(bytes);
  std::uint32_t remainder = ~previous;
  for (; count >= 8; count -= 8, at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= remainder;
    remainder = 0;
    for (std::size_t i = 0; i < 8; ++i) remainder ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
  }
  for (; count > 0; --count, ++at) remainder = (remainder >> 8) ^ kTables[0][(remainder ^ *at) & 0xFF];
  return ~remainder;
}

}  // namespace sage
