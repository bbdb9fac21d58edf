#include <ATen/ops/empty.h>

#include <algorithm>
#include <map>
#include <string>
#include <system_error>
#include <utility>

#include "data/cifar.h"
#include "data/corruption.h"
#include "data/idx.h"
#include "data/tar.h"
#include "fuzz/targets.h"

namespace sage::fuzz {
namespace {

constexpr std::int64_t cifar10_bytes = 10000 * 3072, cifar100_bytes = 50000 * 3072;

/// Any number of records. Large memory is kept from call to call: AddressSanitizer takes long to hand it out.
ReadOptions partial() {
  ReadOptions options{.coarse_labels = false, .allow_partial = true};
  options.allocate = [number = 0](at::IntArrayRef sizes) mutable {
    static std::map<std::pair<int, std::int64_t>, at::Tensor> kept;
    const std::int64_t count = c10::multiply_integers(sizes);
    const auto found = kept.find({number, count});
    at::Tensor images = found != kept.end() ? found->second : at::empty(sizes, at::kByte);
    if (count == cifar10_bytes || count == cifar100_bytes) kept[{number, count}] = images;
    ++number;
    return images;
  };
  return options;
}

/// Cuts a part off the beginning whose length is its first byte.
std::string_view take(std::string_view& bytes) {
  if (bytes.empty()) return {};
  const auto length = std::min<std::size_t>(static_cast<unsigned char>(bytes[0]), bytes.size() - 1);
  const std::string_view part = bytes.substr(1, length);
  bytes.remove_prefix(1 + length);
  return part;
}

void check(const Split& split, const Dataset& dataset) {
  demand(split.size() > 0 && split.images.size(0) == split.size(), "images and labels differ in number");
  for (const std::int64_t label : split.labels) demand(label >= 0 && label < dataset.class_count, "a label too large");
}

void check(const Dataset& dataset) {
  check(dataset.train, dataset);
  check(dataset.test, dataset);
  demand(dataset.class_names.size() == static_cast<std::size_t>(dataset.class_count), "a class without a name");
  for (const float deviation : dataset.deviation) demand(deviation > 0, "normalisation would divide by zero");
}

std::filesystem::path folder_of(const char* name) {
  const auto folder = scratch() / name;
  std::filesystem::create_directories(folder);
  return folder;
}

}  // namespace

void cifar(std::string_view bytes) {
  if (bytes.empty()) return;
  const int choice = bytes[0] & 3;
  bytes.remove_prefix(1);
  const std::string_view names = take(bytes);
  const auto folder = folder_of("cifar");
  const std::size_t label_bytes = choice == 0 ? 1 : 2;
  put(folder / (choice == 0 ? "data_batch_1.bin" : "train.bin"), bytes);
  put(folder / (choice == 0 ? "test_batch.bin" : "test.bin"), std::string(label_bytes + 3072, '\0'));
  const auto names_file = folder / (choice == 0   ? "batches.meta.txt"
                                    : choice == 1 ? "fine_label_names.txt"
                                                  : "coarse_label_names.txt");
  std::error_code ignored;
  std::filesystem::remove(names_file, ignored);
  if (!names.empty()) put(names_file, names);
  ReadOptions options = partial();
  options.coarse_labels = choice >= 2;
  check(choice == 0 ? read_cifar10(folder, options) : read_cifar100(folder, options));
}

void idx(std::string_view bytes) {
  if (bytes.empty()) return;
  const bool fashion = (bytes[0] & 1) != 0;
  bytes.remove_prefix(1);
  const auto folder = folder_of("idx");
  put(folder / "train-labels-idx1-ubyte", take(bytes));
  put(folder / "train-images-idx3-ubyte", bytes);
  const std::string one_label("\0\0\x8\1\0\0\0\1\0", 9), one_image("\0\0\x8\3\0\0\0\1\0\0\0\x1c\0\0\0\x1c", 16);
  put(folder / "t10k-labels-idx1-ubyte", one_label);
  put(folder / "t10k-images-idx3-ubyte", one_image + std::string(784, '\0'));
  check(fashion ? read_fashion_mnist(folder, partial()) : read_mnist(folder, partial()));
}

void human_labels(std::string_view bytes) {
  if (bytes.empty()) return;
  constexpr std::int64_t classes = 10;
  const auto count = static_cast<std::size_t>(static_cast<unsigned char>(bytes[0]) >> 1);
  const bool allow_partial = (bytes[0] & 1) != 0;
  put(scratch() / "labels.u8", bytes.substr(1));
  std::vector<std::int64_t> labels, ids;
  for (std::size_t i = 0; i < count; ++i) {
    labels.push_back(static_cast<std::int64_t>(i) % classes);
    ids.push_back(static_cast<std::int64_t>(i));
  }
  const auto own = labels;
  const auto changed = take_human_labels(labels, ids, classes, scratch() / "labels.u8", allow_partial);
  demand(!changed.empty(), "nothing changed");
  for (std::size_t i = 0; i < count; ++i) {
    demand(labels[i] >= 0 && labels[i] < classes, "a label too large");
    const bool differs = std::binary_search(changed.begin(), changed.end(), static_cast<std::int64_t>(i));
    demand(differs == (labels[i] != own[i]), "a changed label that is not told of");
  }
}

void tar(std::string_view bytes) {
  const auto folder = folder_of("tar"), into = folder / "into";
  const auto archive = scratch() / "x.tar";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(into);
  put(archive, bytes);
  try {
    unpack_tar_gz(archive, into);
  } catch (...) {
    demand(std::distance(std::filesystem::directory_iterator(folder), {}) == 1, "something lies outside of the folder");
    throw;
  }
  demand(std::distance(std::filesystem::directory_iterator(folder), {}) == 1, "something lies outside of the folder");
  for (const auto& entry : std::filesystem::recursive_directory_iterator(into)) {
    demand(!entry.is_symlink() && (entry.is_regular_file() || entry.is_directory()), "neither a file nor a folder");
  }
}

}  // namespace sage::fuzz
