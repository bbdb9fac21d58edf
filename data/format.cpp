#include "data/format.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/text.h"
#include "data/byte_reader.h"

namespace sage {

at::Tensor ReadOptions::images(at::IntArrayRef sizes) const {
  return allocate ? allocate(sizes) : at::empty(sizes, at::kByte);
}

std::filesystem::path locate_file(const std::filesystem::path& folder, std::string_view name) {
  std::vector<std::string> spellings = {std::string(name)};
  if (const std::size_t at = name.find("-idx"); at != std::string_view::npos) {
    spellings.push_back(std::string(name).replace(at, 1, "."));
  }
  for (const std::string& spelling : spellings) {
    for (const char* ending : {"", ".gz"}) {
      const std::filesystem::path path = folder / (spelling + ending);
      std::error_code error;
      if (std::filesystem::is_regular_file(path, error)) return path;
    }
  }
  return {};
}

std::filesystem::path require_file(const std::filesystem::path& folder, std::string_view name) {
  std::filesystem::path path = locate_file(folder, name);
  if (path.empty()) throw DataError(fmt::format("{}: the file {} is missing there", folder.string(), name));
  return path;
}

std::vector<std::string> read_class_names(const std::filesystem::path& file, std::int64_t class_count) {
  std::vector<std::string> names;
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    for (std::int64_t c = 0; c < class_count; ++c) names.push_back(std::to_string(c));
    return names;
  }
  const std::string text = read_all_bytes(file, std::size_t{1} << 20);
  if (const std::size_t at = first_non_text(text); at != std::string::npos) {
    throw DataError(fmt::format("{}: byte {} is a control character or not UTF-8, expected one class name a line",
                                file.string(), at));
  }
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(std::move(line));
    begin = end + 1;
  }
  if (static_cast<std::int64_t>(names.size()) != class_count) {
    throw DataError(
        fmt::format("{}: {} class names, but the data set has {} classes", file.string(), names.size(), class_count));
  }
  return names;
}

void ChannelSums::add(const std::uint8_t* image, std::int64_t pixels) {
  for (auto& histogram : histograms_) {
    for (std::int64_t p = 0; p < pixels; ++p) ++histogram[*image++];
  }
}

void ChannelSums::add(const ChannelSums& other) {
  for (std::size_t c = 0; c < histograms_.size(); ++c) {
    for (std::size_t value = 0; value < 256; ++value) histograms_[c][value] += other.histograms_[c][value];
  }
}

void ChannelSums::set_statistics(Dataset& dataset) const {
  dataset.mean.clear();
  dataset.deviation.clear();
  for (const auto& histogram : histograms_) {
    std::uint64_t count = 0, sum = 0, squares = 0;
    for (std::uint64_t value = 0; value < 256; ++value) {
      count += histogram[value];
      sum += value * histogram[value];
      squares += value * value * histogram[value];
    }
    const double total = static_cast<double>(count);
    const double mean = static_cast<double>(sum) / total;
    const double variance = std::max(0.0, static_cast<double>(squares) / total - mean * mean);
    const bool constant = std::ranges::any_of(histogram, [&](std::uint64_t n) { return n == count; });
    dataset.mean.push_back(static_cast<float>(mean / 255.0));
    dataset.deviation.push_back(constant ? 1.0f : static_cast<float>(std::sqrt(variance) / 255.0));
  }
}

void set_statistics(Dataset& dataset) {
  const at::Tensor& images = dataset.train.images;
  const std::int64_t count = images.size(0), channels = images.size(1), pixels = images.size(2) * images.size(3);
  require(count > 0 && images.is_contiguous(), "statistics of an empty or strided train split");
  const auto* bytes = images.const_data_ptr<std::uint8_t>();
  ChannelSums sums(channels);
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::ranges::binary_search(dataset.train.unreadable, i)) sums.add(bytes + i * channels * pixels, pixels);
  }
  sums.set_statistics(dataset);
}

}  // namespace sage
