// What `sage data info` and `sage data verify` tell about a data set.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/config.h"

namespace sage {

struct FileSummary {
  std::filesystem::path path;
  std::uintmax_t bytes = 0;
  /// not_compared: dataset_summary. unknown: no published checksum for this form of the file.
  enum class Checksum { not_compared, matches, differs, unknown } checksum = Checksum::not_compared;
};

struct SplitSummary {
  std::int64_t count = 0;
  std::vector<std::int64_t> per_class;  ///< class_count numbers
};

struct DatasetSummary {
  std::string name;
  std::filesystem::path folder;
  std::vector<FileSummary> files;
  std::int64_t channels = 0, height = 0, width = 0;
  std::vector<std::string> class_names;
  SplitSummary train, test;
  std::int64_t unreadable = 0;         ///< images that do not decode
  std::vector<float> mean, deviation;  ///< per channel over the train split, of values scaled to [0, 1]
  bool checksums_match() const;        ///< false if one differs
};

/// Opens the data set, and reads it whole unless it is one of images that are read as they are used. Throws what
/// load_dataset throws.
DatasetSummary dataset_summary(const DataConfig& config);

/// Reads the whole data set (and so checks all that readers check), every image and the checksum of every packed record
/// included: those that are damaged are named in the log and counted. Compares files with their published checksums, or
/// those of the archive that they were unpacked from. A difference is reported, not thrown: a changed but readable file
/// may be wanted.
DatasetSummary verify_dataset(const DataConfig& config);

/// Several lines for people.
std::string format_summary(const DatasetSummary& summary);

}  // namespace sage
