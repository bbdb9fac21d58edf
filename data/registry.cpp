#include "data/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/config_keys.h"
#include "core/error.h"
#include "data/cifar.h"
#include "data/digits.h"
#include "data/idx.h"
#include "data/image_folder.h"
#include "data/packed_file.h"

namespace sage {
namespace {

using Names = std::string_view;
constexpr Names digits_folders[] = {"digits"};
constexpr Names digits_files[] = {"digits.csv.gz"};
constexpr Names mnist_folders[] = {"mnist", "MNIST", "MNIST/raw"};
constexpr Names fashion_folders[] = {"fashion-mnist", "fashion_mnist", "FashionMNIST", "FashionMNIST/raw"};
constexpr Names idx_files[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
                               "t10k-labels-idx1-ubyte"};
constexpr Names cifar10_folders[] = {"cifar-10-batches-bin", "cifar-10", "cifar10"};
constexpr Names cifar10_files[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                   "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};
constexpr Names cifar100_folders[] = {"cifar-100-binary", "cifar-100", "cifar100", "cifar-100-subset"};
constexpr Names cifar100_files[] = {"train.bin", "test.bin"};
constexpr Names tiny_folders[] = {"tiny-imagenet-200", "tiny-imagenet", "tiny_imagenet", "tiny-imagenet-20"};
constexpr Names tiny_files[] = {"wnids.txt"};
constexpr Names imagenet_folders[] = {"imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"};
constexpr Names caltech256_folders[] = {"256_ObjectCategories", "caltech256/256_ObjectCategories", "caltech-256",
                                        "caltech256"};
constexpr Names photo_folders[] = {"image_folder", "image-folder"};
constexpr Names split_folders[] = {"train/<class>/*.jpg (or .jpeg, .png)", "val/<class>/*.jpg (or test)"};
constexpr Names caltech256_files[] = {"<number>.<class>/*.jpg"};

constexpr DatasetFormat formats[] = {
    {"digits", digits_folders, digits_files, read_digits},
    {"mnist", mnist_folders, idx_files, read_mnist},
    {"fashion_mnist", fashion_folders, idx_files, read_fashion_mnist},
    {"cifar10", cifar10_folders, cifar10_files, read_cifar10},
    {"cifar100", cifar100_folders, cifar100_files, read_cifar100},
    {"tiny_imagenet", tiny_folders, tiny_files, read_tiny_imagenet, nullptr, "tinyimagenet", true},
    {"imagenet", imagenet_folders, split_folders, read_imagenet, looks_like_image_folder, {}, true},
    {"caltech256", caltech256_folders, caltech256_files, read_caltech256, looks_like_caltech256, {}, true},
    {"image_folder", photo_folders, split_folders, read_image_folder, looks_like_image_folder, {}, true},
};

std::filesystem::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0') {
    return std::filesystem::path(cache) / "sage" / "data";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    return std::filesystem::path(home) / ".cache" / "sage" / "data";
  }
  return {};
}

std::filesystem::path environment_folder() {
  const char* folder = std::getenv("SAGE_DATA_DIR");
  return folder != nullptr ? std::filesystem::path(folder) : std::filesystem::path();
}

/// A folder counts as the data set's once its first file is there; a reader then says what else is missing.
bool holds(const std::filesystem::path& folder, const DatasetFormat& format) {
  if (format.is_in != nullptr) return format.is_in(folder);
  const std::string_view first = format.files.front();
  return !locate_file(folder, first.ends_with(".gz") ? first.substr(0, first.size() - 3) : first).empty();
}

/// MNIST and Fashion-MNIST have the same file names: a folder called after another data set is not taken.
bool named_after_another(const std::filesystem::path& folder, const DatasetFormat& format) {
  const std::string last = (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  return std::ranges::any_of(formats, [&](const DatasetFormat& other) {
    return other.name != format.name && std::ranges::find(other.folder_names, last) != other.folder_names.end();
  });
}

}  // namespace

std::span<const DatasetFormat> dataset_formats() { return formats; }

const DatasetFormat& dataset_format(std::string_view name) {
  std::vector<std::string> names;
  for (const DatasetFormat& format : formats) {
    if (format.name == name || (!format.alias.empty() && format.alias == name)) return format;
    names.emplace_back(format.name);
  }
  const std::string nearest = nearest_name(std::string(name), names);
  throw ConfigError(fmt::format("data.name: there is no data set `{}`{}; there are: {}", name,
                                nearest.empty() ? "" : fmt::format(" (did you mean `{}`?)", nearest),
                                fmt::join(names, ", ")));
}

std::filesystem::path default_data_folder() {
  std::filesystem::path folder = environment_folder();
  if (folder.empty()) folder = cache_folder();
  if (folder.empty()) throw EnvironmentError("no folder for data: set SAGE_DATA_DIR, or HOME");
  return folder;
}

std::filesystem::path find_dataset(std::string_view name, const std::filesystem::path& path) {
  const DatasetFormat& format = dataset_format(name);
  std::vector<std::filesystem::path> above;
  if (!path.empty()) {
    // What any folder of photos is called says nothing; files are known by their names.
    if (holds(path, format) && (format.is_image_folder || !named_after_another(path, format))) return path;
    above = {path};
  } else {
    for (const std::filesystem::path& folder : {environment_folder(), cache_folder()}) {
      if (!folder.empty()) above.push_back(folder);
    }
  }
  std::string places, folders, files;
  for (const std::filesystem::path& folder : above) {
    for (const std::string_view folder_name : format.folder_names) {
      if (holds(folder / folder_name, format)) return folder / folder_name;
    }
    places += (places.empty() ? "" : ", ") + folder.string();
  }
  for (const std::string_view f : format.folder_names) folders += (folders.empty() ? "" : ", ") + std::string(f);
  for (const std::string_view f : format.files) files += (files.empty() ? "" : ", ") + std::string(f);
  throw DataError(fmt::format(
      "data set `{}` not found. Looked in: {}{} (there in the folders {}). Expected files: {}. {} data.path to the "
      "folder that holds them",
      name, places.empty() ? "nowhere (neither SAGE_DATA_DIR nor HOME is set)" : places,
      path.empty() ? "" : " itself and below it", folders, files,
      format.is_image_folder ? "Set" : fmt::format("Get them with `sage data fetch {}`, or set", name)));
}

Dataset load_dataset(const DataConfig& config, const AllocateImages& allocate, bool from_files) {
  const DatasetFormat& format = dataset_format(config.name);
  if (config.labels != "fine" && config.labels != "coarse") {
    throw ConfigError(fmt::format("data.labels: `{}` is neither fine nor coarse", config.labels));
  }
  if (config.labels == "coarse" && config.name != "cifar100") {
    throw ConfigError(fmt::format("data.labels: only cifar100 has coarse labels, not {}", config.name));
  }
  if (config.image_size > 0 && !format.is_image_folder) {
    throw ConfigError(fmt::format("data.image_size: the images of {} have one size; only folders of images are resized",
                                  config.name));
  }
  ReadOptions options{config.labels == "coarse", config.allow_partial, allocate};
  options.image_size = config.image_size;
  options.resizes_at_random = config.augment.random_resized_crop;
  options.from_files = from_files;
  options.skip_corrupt = config.corrupt_images == "skip";
  if (!config.packed.empty()) {
    Dataset dataset = read_packed_dataset(config.packed, options);
    if (dataset.name != format.name) {
      throw ConfigError(fmt::format("data.packed: {} holds the data set {}, and data.name is {}: set data.name={}",
                                    config.packed, dataset.name, config.name, dataset.name));
    }
    return dataset;
  }
  return format.read(find_dataset(config.name, config.path), options);
}

}  // namespace sage
