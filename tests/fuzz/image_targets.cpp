#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/image_decoder.h"
#include "data/image_source.h"
#include "data/packed_file.h"
#include "fuzz/targets.h"

namespace sage::fuzz {

void image(std::string_view bytes) {
  if (bytes.empty()) return;
  const int choice = 1 << (bytes[0] & 3);
  bytes.remove_prefix(1);
  ImageSize whole;
  int reduction = 0;
  const DecodedImage image = decode_image(
      {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "image",
      [&](ImageSize size) {
        whole = size;
        return choice;
      },
      &reduction);
  const auto [height, width] = image.size;
  demand(height >= 1 && width >= 1 && height <= most_image_pixels / width, "an image without pixels, or too large");
  demand(image.pixels.size() == static_cast<std::size_t>(3 * height * width), "pixels and size differ");
  demand(reduction == 1 || whole.height <= height * reduction, "a reduction that was not asked for");
  if (height * width > 1 << 20) return;
  const ViewOptions view{8};
  std::vector<std::uint8_t> planes(3 * 8 * 8);
  if (height < 1000 * width && width < 1000 * height) write_view(image, view, planes.data());
}

void packed(std::string_view bytes) {
  std::string file(bytes);
  PackedTrailer trailer;
  if (file.size() >= sizeof(trailer)) {
    // Checksums are put right: what a hostile writer would do, and past what random changes come.
    const std::size_t end = file.size() - sizeof(trailer);
    std::memcpy(&trailer, file.data() + end, sizeof(trailer));
    const auto checksum = [&](std::uint64_t from, std::uint64_t to) {
      return from <= to && to <= end ? crc32c(file.data() + from, to - from) : 0;
    };
    trailer.index_checksum = checksum(trailer.index, trailer.names);
    trailer.names_checksum = checksum(trailer.names, trailer.metadata);
    trailer.metadata_checksum = checksum(trailer.metadata, end);
    trailer.checksum = trailer.own_checksum();
    std::memcpy(file.data() + end, &trailer, sizeof(trailer));
  }
  const PackedFile read({reinterpret_cast<const std::uint8_t*>(file.data()), file.size()}, "packed");
  const PackedDescription& description = read.description();
  demand(description.train + description.test == read.size(), "records and splits differ");
  for (std::int64_t record = 0; record < std::min<std::int64_t>(read.size(), 64); ++record) {
    demand(read.label(record) < static_cast<std::int64_t>(description.class_names.size()), "a label too large");
    demand(read.name_of(record).size() < 500, "a name that is not to be read");
    try {
      const auto content = read.bytes_of(record);
      demand(!description.decoded || static_cast<std::int64_t>(content.size()) ==
                                         description.channels * description.height * description.width,
             "a decoded record of another size");
    } catch (const DataError&) {  // a record with another checksum: the file as a whole is sound
    }
  }
}

}  // namespace sage::fuzz
