// Writing packed files.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "data/packed_file.h"
#include "data/registry.h"

namespace sage {
namespace {

using nlohmann::json;

/// Appends, and knows where it is.
class Output {
 public:
  explicit Output(const AppendBytes& append) : append_(append) {}
  void write(const void* bytes, std::size_t count) {
    append_(bytes, count);
    written_ += count;
  }
  std::uint64_t position() const { return written_; }

 private:
  const AppendBytes& append_;
  std::uint64_t written_ = 0;
};

struct Writer {
  Dataset& dataset;
  bool decoded, skip;
  std::filesystem::path folder;
  Output& output;
  ChannelSums& sums;
  std::vector<PackedEntry> entries = {};
  std::string names = {};
  std::int64_t left_out = 0;

  std::int64_t image_bytes() const { return dataset.channels() * dataset.height() * dataset.width(); }

  /// Reads an example in both forms where there are both.
  void read(const Split& split, std::int64_t id, std::vector<std::uint8_t>& pixels,
            std::vector<std::uint8_t>& record) const {
    pixels.resize(static_cast<std::size_t>(image_bytes()));
    if (split.source == nullptr) {
      const auto* first = split.images.const_data_ptr<std::uint8_t>() + id * image_bytes();
      pixels.assign(first, first + image_bytes());
    } else {
      split.source->read(id, pixels.data());
    }
    record = decoded ? pixels : split.source->encoded(id);
  }

  std::string name_of(const Split& split, std::int64_t id) const {
    if (split.source == nullptr) return fmt::format("{} {}", &split == &dataset.train ? "train" : "test", id);
    return std::filesystem::path(split.source->name(id)).lexically_relative(folder).string();
  }

  void add(const Split& split) {
    constexpr std::int64_t at_once = 256;
    for (std::int64_t begin = 0; begin < split.size(); begin += at_once) {
      const std::int64_t end = std::min(split.size(), begin + at_once);
      std::vector<std::vector<std::uint8_t>> records(static_cast<std::size_t>(end - begin));
      std::vector<ChannelSums> own(records.size(), ChannelSums(dataset.channels()));
      const auto bad = find_unreadable(begin, end, skip, [&](std::int64_t id) {
        const auto at = static_cast<std::size_t>(id - begin);
        std::vector<std::uint8_t> pixels;
        read(split, id, pixels, records[at]);
        own[at].add(pixels.data(), dataset.height() * dataset.width());
      });
      for (const std::int64_t id : bad) records[static_cast<std::size_t>(id - begin)].clear();
      left_out += static_cast<std::int64_t>(bad.size());
      for (std::size_t i = 0; i < records.size(); ++i) {
        const std::int64_t id = begin + static_cast<std::int64_t>(i);
        const std::string name = name_of(split, id);
        entries.push_back({.offset = output.position(),
                           .name_offset = names.size(),
                           .bytes = static_cast<std::uint32_t>(records[i].size()),
                           .checksum = crc32c(records[i].data(), records[i].size()),
                           .name_bytes = static_cast<std::uint32_t>(name.size()),
                           .label = static_cast<std::uint32_t>(split.labels[static_cast<std::size_t>(id)])});
        names += name;
        output.write(records[i].data(), records[i].size());
        if (&split == &dataset.train && !records[i].empty()) sums.add(own[i]);
      }
    }
  }
};

}  // namespace

PackSummary pack_dataset(const DataConfig& config, const PackOptions& options, const std::filesystem::path& out) {
  const DatasetFormat& format = dataset_format(config.name);
  if (!options.decoded && !format.is_image_folder) {
    throw ConfigError(fmt::format("{} has no JPEG files: pack it with --decoded", config.name));
  }
  Dataset dataset = load_dataset(config, {}, /*from_files=*/true);
  PackSummary summary{dataset.train.size(), dataset.test.size()};
  write_file(out, [&](const AppendBytes& append) {
    Output output(append);
    output.write(packed_magic.data(), packed_magic.size());
    ChannelSums sums(dataset.channels());
    Writer writer{.dataset = dataset,
                  .decoded = options.decoded,
                  .skip = config.corrupt_images == "skip",
                  .folder = find_dataset(config.name, config.path),
                  .output = output,
                  .sums = sums};
    writer.add(dataset.train);
    writer.add(dataset.test);
    summary.left_out = writer.left_out;
    sums.set_statistics(dataset);
    const auto* encoded = dynamic_cast<const EncodedImages*>(dataset.train.source.get());
    const std::string metadata = json{
        {"version", 1},
        {"name", dataset.name},
        {"kind", options.decoded ? "decoded" : "encoded"},
        {"channels", dataset.channels()},
        {"height", dataset.height()},
        {"width", dataset.width()},
        {"margin", encoded != nullptr ? encoded->view().margin : 1.0},
        {"train", dataset.train.size()},
        {"test", dataset.test.size()},
        {"class_names", dataset.class_names},
        {"mean", dataset.mean},
        {"deviation",
         dataset.deviation}}.dump();
    PackedTrailer trailer;
    const std::size_t index_bytes = writer.entries.size() * sizeof(PackedEntry);
    trailer.records = writer.entries.size();
    trailer.index = output.position();
    trailer.names = trailer.index + index_bytes;
    trailer.metadata = trailer.names + writer.names.size();
    trailer.index_checksum = crc32c(writer.entries.data(), index_bytes);
    trailer.names_checksum = crc32c(writer.names.data(), writer.names.size());
    trailer.metadata_checksum = crc32c(metadata.data(), metadata.size());
    trailer.checksum = trailer.own_checksum();
    output.write(writer.entries.data(), index_bytes);
    output.write(writer.names.data(), writer.names.size());
    output.write(metadata.data(), metadata.size());
    output.write(&trailer, sizeof(trailer));
    summary.bytes = output.position();
  });
  return summary;
}

}  // namespace sage
