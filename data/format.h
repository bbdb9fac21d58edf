// What is common to the readers: the table row of a data set format, options, and statistics of a split.
#pragma once
#include <array>
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
  // Folders of images:
  std::int64_t image_size = 0;     ///< side that images are brought to; 0: the data set's own
  bool resizes_at_random = false;  ///< a random part of the image as it lies in its file will be asked for
  bool from_files = false;         ///< never hold images in memory
  bool skip_corrupt = false;       ///< leave out what does not decode (Split::unreadable), instead of throwing

  at::Tensor images(at::IntArrayRef sizes) const;
};

/// One data set that can be read by name.
struct DatasetFormat {
  std::string_view name;  ///< `data.name`
  std::span<const std::string_view>
      folder_names;                         ///< known folder names; the first is the one that fetch_dataset makes
  std::span<const std::string_view> files;  ///< the files that the folder holds, train before test
  Dataset (*read)(const std::filesystem::path& folder, const ReadOptions& options);
  /// Whether a folder is this data set's. Null: if the first of `files` is there.
  bool (*is_in)(const std::filesystem::path& folder) = nullptr;
  std::string_view alias = {};   ///< another name that it is known by
  bool is_image_folder = false;  ///< JPEG and PNG files, of which `sage data pack` makes one
};

/// The file `name` of `folder` under any of its accepted spellings: plain or with `.gz`, and for IDX files with
/// `.idx` in place of `-idx`. Empty path if there is none.
std::filesystem::path locate_file(const std::filesystem::path& folder, std::string_view name);

/// The same, but a missing file is a DataError that names it.
std::filesystem::path require_file(const std::filesystem::path& folder, std::string_view name);

/// Names from a text file with one name a line (blank lines left out). Without the file: "0", "1", ...
/// Throws DataError if the file holds another number of names than `class_count`.
std::vector<std::string> read_class_names(const std::filesystem::path& file, std::int64_t class_count);

/// Sums of the bytes of each channel, exact whole numbers: the statistics of any number of images.
class ChannelSums {
 public:
  explicit ChannelSums(std::int64_t channels) : histograms_(static_cast<std::size_t>(channels)) {}
  /// The planes [channels, pixels] of one image.
  void add(const std::uint8_t* image, std::int64_t pixels);
  void add(const ChannelSums& other);
  /// Sets mean and deviation of `dataset`.
  void set_statistics(Dataset& dataset) const;

 private:
  std::vector<std::array<std::uint64_t, 256>> histograms_;
};

/// Sets mean and deviation from the train split. Sums are exact integers; the deviation is that of the population, and
/// 1 for a channel that is constant (so that normalisation never divides by zero).
void set_statistics(Dataset& dataset);

}  // namespace sage
