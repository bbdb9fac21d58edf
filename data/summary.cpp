#include "data/summary.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "data/byte_reader.h"
#include "data/fetch.h"
#include "data/md5.h"
#include "data/registry.h"

namespace sage {
namespace {

SplitSummary summarize(const Split& split, std::int64_t class_count) {
  SplitSummary summary{split.size(), std::vector<std::int64_t>(static_cast<std::size_t>(class_count))};
  for (const std::int64_t label : split.labels) ++summary.per_class[static_cast<std::size_t>(label)];
  return summary;
}

/// Known checksums by file name: published ones, and those noted when an archive was unpacked.
std::map<std::string, std::string> known_checksums(std::string_view name, const std::filesystem::path& folder) {
  std::map<std::string, std::string> known;
  for (const OfficialFile& file : official_source(name).files) {
    if (!file.md5.empty()) known[file.name] = file.md5;
  }
  const std::filesystem::path noted = folder / checksum_file_name;
  if (!std::filesystem::is_regular_file(noted)) return known;
  const std::string text = read_all_bytes(noted, std::size_t{1} << 20);
  for (std::size_t begin = 0; begin < text.size();) {  // "<32 digits>  <name>"
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    if (line.size() > 34) known[line.substr(34)] = line.substr(0, 32);
    begin = end + 1;
  }
  return known;
}

const char* words(FileSummary::Checksum checksum) {
  switch (checksum) {
    case FileSummary::Checksum::matches:
      return ", checksum as published";
    case FileSummary::Checksum::differs:
      return ", CHECKSUM DIFFERS from the published one";
    case FileSummary::Checksum::unknown:
      return ", no published checksum for this form of the file";
    default:
      return "";
  }
}

DatasetSummary summarize(const Dataset& dataset, const DataConfig& config) {
  DatasetSummary summary;
  summary.name = dataset.name;
  if (!config.packed.empty()) {
    summary.folder = std::filesystem::absolute(config.packed).parent_path();
    summary.files.push_back({config.packed, std::filesystem::file_size(config.packed)});
  } else {
    summary.folder = find_dataset(config.name, config.path);
    for (const std::string_view file : dataset_format(config.name).files) {
      const std::string_view plain = file.ends_with(".gz") ? file.substr(0, file.size() - 3) : file;
      const std::filesystem::path path = locate_file(summary.folder, plain);
      if (!path.empty()) summary.files.push_back({path, std::filesystem::file_size(path)});
    }
  }
  summary.channels = dataset.channels();
  summary.height = dataset.height();
  summary.width = dataset.width();
  summary.class_names = dataset.class_names;
  summary.train = summarize(dataset.train, dataset.class_count);
  summary.test = summarize(dataset.test, dataset.class_count);
  summary.unreadable = static_cast<std::int64_t>(dataset.train.unreadable.size() + dataset.test.unreadable.size());
  summary.mean = dataset.mean;
  summary.deviation = dataset.deviation;
  return summary;
}

}  // namespace

bool DatasetSummary::checksums_match() const {
  return std::ranges::none_of(files, [](const auto& f) { return f.checksum == FileSummary::Checksum::differs; });
}

DatasetSummary dataset_summary(const DataConfig& config) { return summarize(load_dataset(config), config); }

DatasetSummary verify_dataset(const DataConfig& config) {
  DataConfig all = config;
  all.corrupt_images = "skip";  // named and counted, all of them
  Dataset dataset = load_dataset(all);
  for (Split* split : {&dataset.train, &dataset.test}) {
    if (split->source == nullptr) continue;
    split->unreadable =
        find_unreadable(0, split->size(), /*skip=*/true, [&](std::int64_t id) { split->source->check(id); });
  }
  DatasetSummary summary = summarize(dataset, config);
  if (!config.packed.empty() || dataset_format(config.name).is_image_folder) return summary;  // nothing is published
  const auto known = known_checksums(config.name, summary.folder);
  for (FileSummary& file : summary.files) {
    const auto entry = known.find(file.path.filename().string());
    file.checksum = entry == known.end()                      ? FileSummary::Checksum::unknown
                    : md5_of_file(file.path) == entry->second ? FileSummary::Checksum::matches
                                                              : FileSummary::Checksum::differs;
  }
  return summary;
}

std::string format_summary(const DatasetSummary& summary) {
  std::string text = fmt::format("{} in {}\n", summary.name, summary.folder.string());
  for (const FileSummary& file : summary.files) {
    text += fmt::format("  {}: {} bytes{}\n", file.path.filename().string(), file.bytes, words(file.checksum));
  }
  text += fmt::format("{} train and {} test images of {} x {} x {}, {} classes\n", summary.train.count,
                      summary.test.count, summary.channels, summary.height, summary.width, summary.class_names.size());
  if (summary.unreadable > 0) text += fmt::format("images that do not decode: {}\n", summary.unreadable);
  text += fmt::format("mean {:.4f}, deviation {:.4f} per channel, of values scaled to [0, 1]\n",
                      fmt::join(summary.mean, " "), fmt::join(summary.deviation, " "));
  std::size_t widest = 5;
  for (const std::string& name : summary.class_names) widest = std::max(widest, name.size());
  text += fmt::format("  {:<{}}  {:>6}  {:>6}\n", "class", widest, "train", "test");
  for (std::size_t c = 0; c < summary.class_names.size(); ++c) {
    text += fmt::format("  {:<{}}  {:>6}  {:>6}\n", summary.class_names[c], widest, summary.train.per_class[c],
                        summary.test.per_class[c]);
  }
  return text;
}

}  // namespace sage
