// The end of a packed file, as its reader and its writer see it. Little-endian.
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>

#include "core/checksum.h"

namespace sage {

static_assert(std::endian::native == std::endian::little, "packed files are read as they lie in memory");

inline constexpr std::string_view packed_magic = "SAGEPACK";
inline constexpr std::uint64_t packed_trailer_magic = 0x314B434150474153;  // "SAGPACK1"

/// Offsets from the beginning of the file.
struct PackedTrailer {
  std::uint64_t records = 0, index = 0, names = 0, metadata = 0;
  std::uint32_t index_checksum = 0, names_checksum = 0, metadata_checksum = 0, reserved = 0;
  std::uint64_t magic = packed_trailer_magic;
  std::uint32_t checksum = 0;  ///< of all before it
  std::uint32_t end = 0;

  std::uint32_t own_checksum() const { return crc32c(this, 56); }
};
static_assert(sizeof(PackedTrailer) == 64);

/// One record in the index.
struct PackedEntry {
  std::uint64_t offset = 0, name_offset = 0;  ///< the name: from the beginning of the names
  std::uint32_t bytes = 0;                    ///< 0: left out, since it did not decode
  std::uint32_t checksum = 0, name_bytes = 0, label = 0;
};
static_assert(sizeof(PackedEntry) == 32);

}  // namespace sage
