// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected): finds every burst of up to 32 flipped bits.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sage {

/// Checksum of `count` bytes. To go on with more bytes, pass the result as `previous`:
/// crc32c(b, m, crc32c(a, n)) is the checksum of a followed by b. crc32c("123456789", 9) = 0xE3069283.
std::uint32_t crc32c(const void* bytes, std::size_t count, std::uint32_t previous = 0);

}  // namespace sage
