#include "data/idx.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/error.h"
#include "data/byte_reader.h"

namespace sage {
namespace {

constexpr std::int64_t side = 28;
constexpr std::int64_t class_count = 10;

std::uint32_t read_big_endian(ByteReader& reader, const char* what) {
  std::array<std::uint8_t, 4> bytes{};
  if (reader.read(bytes.data(), bytes.size()) < bytes.size()) {
    throw DataError(fmt::format("{}: the file ends within its header, before the {}", reader.path().string(), what));
  }
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
}

void check_magic(ByteReader& reader, std::uint32_t expected) {
  const std::uint32_t magic = read_big_endian(reader, "magic number");
  if (magic != expected) {
    throw DataError(fmt::format("{}: not an IDX file of the expected kind: magic number 0x{:08x}, expected 0x{:08x}",
                                reader.path().string(), magic, expected));
  }
}

/// Number of records of the header, checked before anything is allocated for it.
std::int64_t read_count(ByteReader& reader, std::int64_t expected, bool allow_partial) {
  const std::int64_t count = read_big_endian(reader, "number of records");
  if (count > expected || count == 0) {
    throw DataError(
        fmt::format("{}: the header promises {} records, expected {}", reader.path().string(), count, expected));
  }
  if (count < expected && !allow_partial) {
    throw DataError(
        fmt::format("{}: {} records, expected {}; to train on such a part of the data set, set "
                    "data.allow_partial=true (`sage data`: --allow-partial)",
                    reader.path().string(), count, expected));
  }
  return count;
}

void read_body(ByteReader& reader, std::uint8_t* bytes, std::int64_t records, std::int64_t record_bytes) {
  const auto total = static_cast<std::size_t>(records * record_bytes);
  const std::size_t got = reader.read(bytes, total);
  if (got < total) {
    throw DataError(fmt::format("{}: record {} is cut short: the header promises {} records", reader.path().string(),
                                static_cast<std::int64_t>(got) / record_bytes, records));
  }
  if (!reader.at_end()) {
    throw DataError(fmt::format("{}: there is more data after record {}, the last that the header promises",
                                reader.path().string(), records - 1));
  }
}

Split read_split(const std::filesystem::path& images_path, const std::filesystem::path& labels_path,
                 std::int64_t expected, const ReadOptions& options) {
  Split split;
  ByteReader images(images_path);
  check_magic(images, 0x00000803);
  const std::int64_t count = read_count(images, expected, options.allow_partial);
  const std::uint32_t rows = read_big_endian(images, "number of rows");
  const std::uint32_t columns = read_big_endian(images, "number of columns");
  if (rows != side || columns != side) {
    throw DataError(
        fmt::format("{}: images of {} x {} pixels, expected {} x {}", images_path.string(), rows, columns, side, side));
  }
  split.images = options.images({count, 1, side, side});
  read_body(images, split.images.mutable_data_ptr<std::uint8_t>(), count, side * side);

  ByteReader labels(labels_path);
  check_magic(labels, 0x00000801);
  const std::int64_t label_count = read_count(labels, expected, options.allow_partial);
  if (label_count != count) {
    throw DataError(fmt::format("{}: {} labels for the {} images of {}", labels_path.string(), label_count, count,
                                images_path.string()));
  }
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count));
  read_body(labels, bytes.data(), count, 1);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] >= class_count) {
      throw DataError(
          fmt::format("{}: record {}: label {} is not below {}", labels_path.string(), i, bytes[i], class_count));
    }
  }
  split.labels.assign(bytes.begin(), bytes.end());
  return split;
}

Dataset read_idx(const std::filesystem::path& folder, const ReadOptions& options, std::string name,
                 std::vector<std::string> class_names) {
  Dataset dataset;
  dataset.name = std::move(name);
  dataset.class_count = class_count;
  dataset.class_names = std::move(class_names);
  dataset.train = read_split(require_file(folder, "train-images-idx3-ubyte"),
                             require_file(folder, "train-labels-idx1-ubyte"), 60000, options);
  dataset.test = read_split(require_file(folder, "t10k-images-idx3-ubyte"),
                            require_file(folder, "t10k-labels-idx1-ubyte"), 10000, options);
  set_statistics(dataset);
  return dataset;
}

}  // namespace

Dataset read_mnist(const std::filesystem::path& folder, const ReadOptions& options) {
  return read_idx(folder, options, "mnist", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"});
}

Dataset read_fashion_mnist(const std::filesystem::path& folder, const ReadOptions& options) {
  return read_idx(
      folder, options, "fashion_mnist",
      {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"});
}

}  // namespace sage
