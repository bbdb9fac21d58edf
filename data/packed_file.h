// A whole data set in one file, which is mapped into memory: ranks of a node share its pages.
//
//   "SAGEPACK" (8 bytes), records one behind the other (train, then test), the index, the names of the records,
//   metadata (JSON), and a trailer of 64 bytes: where those three lie, and their checksums.
//
// A record is a file as it was (JPEG, PNG) or decoded bytes [C, H, W]; each has a CRC-32C in the index.
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "data/format.h"
#include "data/packed_layout.h"

namespace sage {

/// What the metadata of a packed file say.
struct PackedDescription {
  std::string name;      ///< of the data set
  bool decoded = false;  ///< records are bytes [channels, height, width]
  std::int64_t channels = 0, height = 0,
               width = 0;            ///< of the images as they are used unless data.image_size says else
  double margin = 1.0;               ///< of encoded images: ViewOptions
  std::int64_t train = 0, test = 0;  ///< records of each split
  std::vector<std::string> class_names;
  std::vector<float> mean, deviation;
};

/// A packed file in memory. Opening checks everything but the records, which are checked when they are first read.
class PackedFile {
 public:
  /// Maps the file. It must not change while it is used. Throws DataError naming it and what is wrong.
  static std::shared_ptr<const PackedFile> open(const std::filesystem::path& path);
  /// Over bytes that outlive this object; `name` stands for the file in messages.
  PackedFile(std::span<const std::uint8_t> bytes, std::string name);
  virtual ~PackedFile() = default;

  const PackedDescription& description() const { return description_; }
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  std::int64_t label(std::int64_t record) const { return entry(record).label; }
  /// An image that did not decode when the file was made: it has no bytes.
  bool is_left_out(std::int64_t record) const { return entry(record).bytes == 0; }
  /// "file, record 17 (n01443537/images/n01443537_0.JPEG)".
  std::string name_of(std::int64_t record) const;
  /// Throws DataError naming the record if it was left out, or if its bytes do not have their checksum.
  std::span<const std::uint8_t> bytes_of(std::int64_t record) const;
  /// Compares the checksum, whether that was done before or not.
  void check(std::int64_t record) const;

 private:
  const PackedEntry& entry(std::int64_t record) const;

  std::span<const std::uint8_t> bytes_, names_;
  std::string path_;
  PackedDescription description_;
  std::vector<PackedEntry> entries_;
  std::unique_ptr<std::atomic<bool>[]> checked_;
};

/// The splits of a packed file, read as they are used. Throws DataError; ConfigError for an image size that decoded
/// records do not have.
Dataset read_packed_dataset(const std::filesystem::path& path, const ReadOptions& options);

struct PackOptions {
  bool decoded = true;  ///< else files as they are (folders of images only)
};

struct PackSummary {
  std::int64_t train = 0, test = 0, left_out = 0;
  std::uintmax_t bytes = 0;
};

/// Writes the data set that `config` names to `out`, aside, synced and renamed. Every image is decoded on the way, by
/// all cores: for the statistics, and so that nothing is packed that does not decode. Example ids stay what they are:
/// an image that is left out (data.corrupt_images=skip) keeps its place without bytes. Memory: the images of 256 files.
/// Throws DataError, ConfigError, EnvironmentError.
PackSummary pack_dataset(const DataConfig& config, const PackOptions& options, const std::filesystem::path& out);

}  // namespace sage
