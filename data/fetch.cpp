#include "data/fetch.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "data/digits.h"
#include "data/download.h"
#include "data/md5.h"
#include "data/registry.h"
#include "data/tar.h"

namespace sage {
namespace {

std::vector<OfficialFile> idx_files(const char* train_images, const char* train_labels, const char* test_images,
                                    const char* test_labels) {
  return {{"train-images-idx3-ubyte.gz", train_images},
          {"train-labels-idx1-ubyte.gz", train_labels},
          {"t10k-images-idx3-ubyte.gz", test_images},
          {"t10k-labels-idx1-ubyte.gz", test_labels}};
}

[[noreturn]] void throw_with_way_out(std::string_view name, const std::string& reason, const OfficialSource& source,
                                     const std::filesystem::path& destination) {
  std::string files;
  for (const OfficialFile& file : source.files) files += (files.empty() ? "" : ", ") + file.name;
  throw DataError(fmt::format(
      "data set `{}` could not be fetched: {}. Without a network, get {} elsewhere{} and {} {}; or run `sage data "
      "fetch "
      "{}` with --url and a base such as file:///folder/that/holds/them",
      name, reason, files, source.base_url.empty() ? "" : fmt::format(" (published at {})", source.base_url),
      source.archive ? "unpack it so that its files lie in" : "put them into", destination.string(), name));
}

bool has_all_files(const DatasetFormat& format, const std::filesystem::path& folder) {
  return std::ranges::all_of(format.files, [&](std::string_view file) { return !locate_file(folder, file).empty(); });
}

void write_checksums(const std::filesystem::path& folder) {
  std::vector<std::string> lines;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) {
      lines.push_back(fmt::format("{}  {}\n", md5_of_file(entry.path()), entry.path().filename().string()));
    }
  }
  std::ranges::sort(lines, {}, [](const std::string& line) { return line.substr(32); });
  std::string text;
  for (const std::string& line : lines) text += line;
  write_file(folder / checksum_file_name, text);
}

/// Unpacks aside, then renames: the archive holds one folder with the data set's files, under whatever name.
void unpack_dataset(const DatasetFormat& format, const std::filesystem::path& archive,
                    const std::filesystem::path& destination) {
  const std::filesystem::path aside = destination.string() + ".unpacking";
  std::filesystem::remove_all(aside);
  make_folder(aside);
  try {
    unpack_tar_gz(archive, aside);
    std::vector<std::filesystem::path> candidates = {aside};
    for (const auto& entry : std::filesystem::directory_iterator(aside)) {
      if (entry.is_directory()) candidates.push_back(entry.path());
    }
    const auto found = std::ranges::find_if(candidates, [&](const auto& c) { return has_all_files(format, c); });
    if (found == candidates.end()) {
      throw DataError(fmt::format("{}: the archive does not hold the data set's files", archive.string()));
    }
    write_checksums(*found);
    // What is there lacks files of the data set; anything else in it stays.
    make_folder(destination);
    for (const auto& entry : std::filesystem::directory_iterator(*found)) {
      std::filesystem::rename(entry.path(), destination / entry.path().filename());
    }
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove_all(aside, ignored);
    throw;
  }
  std::filesystem::remove_all(aside);
  std::filesystem::remove(archive);
}

}  // namespace

OfficialSource official_source(std::string_view name) {
  dataset_format(name);  // throws for an unknown name
  if (name == "cifar10") {
    return {"https://www.cs.toronto.edu/~kriz", {{"cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"}}, true};
  }
  if (name == "cifar100") {
    return {
        "https://www.cs.toronto.edu/~kriz", {{"cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"}}, true};
  }
  if (name == "mnist") {
    return {"https://ossci-datasets.s3.amazonaws.com/mnist",
            idx_files("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                      "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
            false};
  }
  if (name == "fashion_mnist") {
    return {"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            idx_files("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                      "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
            false};
  }
  if (dataset_format(name).is_image_folder) {
    throw ConfigError(
        fmt::format("data.name: {} cannot be fetched: get it from its publisher, and name its folder with --path or "
                    "data.path",
                    name));
  }
  require(name == "digits", "official_source: a data set without a source");
  return {"", {{"digits.csv.gz", ""}}, false};
}

std::filesystem::path fetch_dataset(std::string_view name, const std::filesystem::path& folder,
                                    const std::string& base_url) {
  return fetch_dataset(name, folder, base_url, official_source(name));
}

std::filesystem::path fetch_dataset(std::string_view name, const std::filesystem::path& folder,
                                    const std::string& base_url, const OfficialSource& source) {
  const DatasetFormat& format = dataset_format(name);
  const std::filesystem::path destination = folder / format.folder_names.front();
  std::string url = base_url.empty() ? source.base_url : base_url;
  while (url.ends_with('/')) url.pop_back();
  if (source.archive && has_all_files(format, destination)) return destination;
  if (url.empty()) {
    if (has_all_files(format, destination)) return destination;
    throw_with_way_out(name,
                       "the digits come with scikit-learn, in the folder sklearn/datasets/data of the Python "
                       "environment that it is installed in, and have no server",
                       source, destination);
  }
  const std::filesystem::path downloads = source.archive ? folder : destination;
  make_folder(downloads);
  for (const OfficialFile& file : source.files) {
    const std::filesystem::path target = downloads / file.name;
    std::error_code ignored;
    if (std::filesystem::is_regular_file(target, ignored) && !file.md5.empty() && md5_of_file(target) == file.md5) {
      continue;
    }
    try {
      download_file(url + "/" + file.name, target, file.md5);
    } catch (const DataError& error) {
      throw_with_way_out(name, error.what(), source, destination);
    }
  }
  if (source.archive) unpack_dataset(format, folder / source.files.front().name, destination);
  if (name == "digits") {  // no published checksum: the content has to be right
    try {
      read_digits(destination, {});
    } catch (const DataError&) {
      std::filesystem::remove(destination / source.files.front().name);
      throw;
    }
  }
  return destination;
}

}  // namespace sage
