// What is common to the readers: the table row of a data set format, options, and statistics of a split.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace sage {

/// Memory for the images of a split: uint8, of these sizes.
using AllocateImages = std::function<at::Tensor(at::IntArrayRef sizes)>;

struct ReadOptions {
  bool coarse_labels = false;    ///< CIFAR-100: the 20 superclasses instead of the 100 classes
  bool allow_partial = false;    ///< accept fewer records than the official files hold (whole records only)
  AllocateImages allocate = {};  ///< where large data sets read their images to; empty: memory of LibTorch

  at::Tensor images(at::IntArrayRef sizes) const;
};

/// One data set that can be read by name.
struct DatasetFormat {
  std::string_view name;  ///< `data.name`
  std::span<const std::string_view>
      folder_names;                         ///< known folder names; the first is the one that fetch_dataset makes
  std::span<const std::string_view> files;  ///< the files that the folder holds, train before test
  Dataset (*read)(const std::filesystem::path& folder, const ReadOptions& options);
};

/// The file `name` of `folder` under any of its accepted spellings: plain or with `.gz`, and for IDX files with
/// `.idx` in place of `-idx`. Empty path if there is none.
std::filesystem::path locate_file(const std::filesystem::path& folder, std::string_view name);

/// The same, but a missing file is a DataError that names it.
std::filesystem::path require_file(const std::filesystem::path& folder, std::string_view name);

/// Names from a text file with one name a line (blank lines left out). Without the file: "0", "1", ...
/// Throws DataError if the file holds another number of names than `class_count`.
std::vector<std::string> read_class_names(const std::filesystem::path& file, std::int64_t class_count);

/// Sets mean and deviation from the train split. Sums are exact integers; the deviation is that of the population, and
/// 1 for a channel that is constant (so that normalisation never divides by zero).
void set_statistics(Dataset& dataset);

}  // namespace sage
