#include "data/digits.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "core/error.h"
#include "data/byte_reader.h"

namespace sage {
namespace {

constexpr std::int64_t row_count = 1797;
constexpr std::size_t pixel_count = 64;
constexpr int grey_levels = 17;
constexpr int class_count = 10;
using Row = std::array<int, pixel_count + 1>;

Row parse_row(std::string_view line, const std::string& file, std::size_t record) {
  Row row{};
  const char* at = line.data();
  const char* const end = at + line.size();
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto [next, error] = std::from_chars(at, end, row[i]);
    if (error != std::errc() || (i + 1 < row.size() ? next == end || *next != ',' : next != end)) {
      throw DataError(fmt::format("{}: record {}: value {} is not one of {} whole numbers between commas", file, record,
                                  i, row.size()));
    }
    const int limit = i < pixel_count ? grey_levels : class_count;
    if (row[i] < 0 || row[i] >= limit) {
      throw DataError(fmt::format("{}: record {}: {} {} is not in 0..{}", file, record,
                                  i < pixel_count ? "grey value" : "label", row[i], limit - 1));
    }
    at = next + 1;
  }
  return row;
}

Split make_split(const std::vector<Row>& rows) {
  Split split;
  split.images = at::empty({static_cast<std::int64_t>(rows.size()), 1, 8, 8}, at::kByte);
  auto* bytes = split.images.mutable_data_ptr<std::uint8_t>();
  for (const Row& row : rows) {
    for (std::size_t p = 0; p < pixel_count; ++p) *bytes++ = static_cast<std::uint8_t>(row[p] * 15);
    split.labels.push_back(row[pixel_count]);
  }
  return split;
}

}  // namespace

Dataset read_digits(const std::filesystem::path& folder, const ReadOptions& options) {
  const std::filesystem::path path = require_file(folder, "digits.csv");
  const std::string file = path.string();
  const std::string text = read_all_bytes(path, std::size_t{1} << 20);
  std::vector<Row> train, test;
  std::size_t record = 0;
  for (std::size_t begin = 0; begin < text.size(); ++record) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line(text.data() + begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    (record % 5 == 0 ? test : train).push_back(parse_row(line, file, record));
    begin = end + 1;
  }
  if (record > row_count || (record < row_count && !options.allow_partial) || train.empty()) {
    throw DataError(fmt::format("{}: {} records, expected {}{}", file, record, row_count,
                                record < row_count ? "; to train on such a part of the data set, set "
                                                     "data.allow_partial=true (`sage data`: --allow-partial)"
                                                   : ""));
  }
  Dataset dataset;
  dataset.name = "digits";
  dataset.class_count = class_count;
  for (int c = 0; c < class_count; ++c) dataset.class_names.push_back(std::to_string(c));
  dataset.train = make_split(train);
  dataset.test = make_split(test);
  set_statistics(dataset);
  return dataset;
}

}  // namespace sage
