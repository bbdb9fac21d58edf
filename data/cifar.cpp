#include "data/cifar.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "core/error.h"
#include "data/byte_reader.h"

namespace sage {
namespace {

constexpr std::int64_t image_bytes = 3 * 32 * 32;

/// Where the label stands in a record, and which values its label bytes may have.
struct RecordLayout {
  std::vector<std::int64_t> label_limits;  // one per label byte
  std::size_t used_label = 0;
};

struct SourceFile {
  std::filesystem::path path;
  std::int64_t records = 0;  // official number
};

void read_records(const SourceFile& source, const RecordLayout& layout, bool allow_partial, Split& split) {
  ByteReader reader(source.path);
  const std::size_t label_bytes = layout.label_limits.size();
  const std::size_t record_bytes = label_bytes + image_bytes;
  const std::string file = source.path.string();
  std::vector<std::uint8_t> record(record_bytes);
  std::int64_t count = 0;
  for (;; ++count) {
    const std::size_t got = reader.read(record.data(), record_bytes);
    if (got == 0) break;
    if (got < record_bytes) {
      throw DataError(fmt::format("{}: record {} is cut short: {} of {} bytes", file, count, got, record_bytes));
    }
    if (count == source.records) {
      throw DataError(fmt::format("{}: there is more data after record {}, the last that this file may have", file,
                                  source.records - 1));
    }
    for (std::size_t l = 0; l < label_bytes; ++l) {
      if (record[l] >= layout.label_limits[l]) {
        throw DataError(
            fmt::format("{}: record {}: label {} is not below {}", file, count, record[l], layout.label_limits[l]));
      }
    }
    std::memcpy(split.images.mutable_data_ptr<std::uint8_t>() + split.size() * image_bytes, record.data() + label_bytes,
                image_bytes);
    split.labels.push_back(record[layout.used_label]);
  }
  if (count < source.records && !allow_partial) {
    throw DataError(
        fmt::format("{}: {} records, expected {}; to train on such a part of the data set, set "
                    "data.allow_partial=true (`sage data`: --allow-partial)",
                    file, count, source.records));
  }
}

Split read_split(const std::vector<SourceFile>& files, const RecordLayout& layout, const ReadOptions& options) {
  std::int64_t capacity = 0;
  for (const SourceFile& file : files) capacity += file.records;
  Split split;
  split.images = options.images({capacity, 3, 32, 32});
  split.labels.reserve(static_cast<std::size_t>(capacity));
  for (const SourceFile& file : files) read_records(file, layout, options.allow_partial, split);
  if (split.size() == 0) {
    throw DataError(fmt::format("{}: no record in it, expected {}", files.front().path.string(), capacity));
  }
  split.images = split.images.narrow(0, 0, split.size());  // what was not written to takes no memory
  return split;
}

}  // namespace

Dataset read_cifar10(const std::filesystem::path& folder, const ReadOptions& options) {
  std::vector<SourceFile> train;
  for (int batch = 1; batch <= 5; ++batch) {
    const std::string name = fmt::format("data_batch_{}.bin", batch);
    if (options.allow_partial && batch > 1 && locate_file(folder, name).empty()) continue;
    train.push_back({require_file(folder, name), 10000});
  }
  const RecordLayout layout{{10}, 0};
  Dataset dataset;
  dataset.name = "cifar10";
  dataset.class_count = 10;
  dataset.train = read_split(train, layout, options);
  dataset.test = read_split({{require_file(folder, "test_batch.bin"), 10000}}, layout, options);
  dataset.class_names = read_class_names(folder / "batches.meta.txt", dataset.class_count);
  set_statistics(dataset);
  return dataset;
}

Dataset read_cifar100(const std::filesystem::path& folder, const ReadOptions& options) {
  const RecordLayout layout{{20, 100}, options.coarse_labels ? std::size_t{0} : std::size_t{1}};
  Dataset dataset;
  dataset.name = "cifar100";
  dataset.class_count = options.coarse_labels ? 20 : 100;
  dataset.train = read_split({{require_file(folder, "train.bin"), 50000}}, layout, options);
  dataset.test = read_split({{require_file(folder, "test.bin"), 10000}}, layout, options);
  dataset.class_names = read_class_names(
      folder / (options.coarse_labels ? "coarse_label_names.txt" : "fine_label_names.txt"), dataset.class_count);
  set_statistics(dataset);
  return dataset;
}

}  // namespace sage
