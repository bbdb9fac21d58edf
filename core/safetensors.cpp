#include "core/safetensors.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/bounded_json.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"

namespace sage {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");
using nlohmann::json;

constexpr std::string_view kHeaderChecksum = "sage.crc32c.header";
constexpr std::string_view kTensorChecksums = "sage.crc32c.tensors";
constexpr std::string_view kReserved = "sage.crc32c";
constexpr std::uint64_t kHeaderLimit = 100'000'000;  // bytes; the limit of the format's own library
constexpr std::size_t kDimensionLimit = 64;          // LibTorch's own
constexpr std::size_t kNameLimit = 4096;             // bytes
constexpr std::size_t kTensorLimit = 50'000;         // with 64 sizes each still within JsonLimits::values

struct ItemType {
  at::ScalarType type;
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array<ItemType, 8> kItemTypes{{{at::kDouble, "F64", 8},
                                              {at::kFloat, "F32", 4},
                                              {at::kHalf, "F16", 2},
                                              {at::kBFloat16, "BF16", 2},
                                              {at::kLong, "I64", 8},
                                              {at::kInt, "I32", 4},
                                              {at::kByte, "U8", 1},
                                              {at::kBool, "BOOL", 1}}};

std::string hex(std::uint32_t value) { return fmt::format("{:08x}", value); }

/// The quoted key and the opening quote of its value. Inside JSON strings quotes are escaped, so this text can only
/// stand where the header names the key itself.
std::string header_checksum_pattern() { return fmt::format("\"{}\":\"", kHeaderChecksum); }

std::uint32_t header_checksum(const std::string& header) {
  const std::uint64_t length = header.size();
  return crc32c(header.data(), header.size(), crc32c(&length, sizeof(length)));
}

// ---------------------------------------------------------------------------------------------------- writing

const ItemType& item_type_of(const NamedTensor& entry) {
  const auto found = std::find_if(kItemTypes.begin(), kItemTypes.end(),
                                  [&](const ItemType& item) { return item.type == entry.tensor.scalar_type(); });
  if (found == kItemTypes.end()) {
    throw InternalError(fmt::format("safetensors: tensor '{}' has type {}, which is not written", entry.name,
                                    c10::toString(entry.tensor.scalar_type())));
  }
  return *found;
}

struct Entry {
  std::string name;
  at::Tensor data;  // CPU, contiguous
  const ItemType* item;
  std::uint64_t bytes;
};

std::vector<Entry> entries_to_write(std::span<const NamedTensor> tensors) {
  if (tensors.size() > kTensorLimit) {
    throw InternalError(
        fmt::format("safetensors: {} tensors, at most {} can be read back", tensors.size(), kTensorLimit));
  }
  std::vector<Entry> entries;
  std::set<std::string> names;
  for (const NamedTensor& named : tensors) {
    if (named.name.size() > kNameLimit || first_non_text(named.name) != std::string::npos) {
      throw InternalError(fmt::format("safetensors: the name '{}' cannot be read back", excerpt(named.name)));
    }
    if (named.name == "__metadata__" || !names.insert(named.name).second) {
      throw InternalError(fmt::format("safetensors: the name '{}' is taken", named.name));
    }
    if (!named.tensor.defined() || named.tensor.layout() != at::kStrided) {
      throw InternalError(fmt::format("safetensors: tensor '{}' is undefined or not dense", named.name));
    }
    const ItemType& item = item_type_of(named);
    at::Tensor data = named.tensor.detach().to(at::kCPU).contiguous();
    const std::uint64_t bytes = static_cast<std::uint64_t>(data.numel()) * item.bytes;
    entries.push_back({named.name, std::move(data), &item, bytes});
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.item->bytes > b.item->bytes; });
  return entries;
}

std::string header_to_write(const std::vector<Entry>& entries, const std::map<std::string, std::string>& metadata) {
  json checksums = json::object();
  for (const Entry& entry : entries) checksums[entry.name] = hex(crc32c(entry.data.const_data_ptr(), entry.bytes));
  json all_metadata = metadata;
  for (const auto& [key, value] : metadata) {
    if (key.starts_with(kReserved))
      throw InternalError(fmt::format("safetensors: the metadata key '{}' is taken", key));
  }
  all_metadata[std::string(kTensorChecksums)] = checksums.dump();
  all_metadata[std::string(kHeaderChecksum)] = hex(0);

  std::string header = fmt::format("{{\"__metadata__\":{}", all_metadata.dump());
  std::uint64_t offset = 0;
  for (const Entry& entry : entries) {
    const json shape = entry.data.sizes().vec();
    header += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", json(entry.name).dump(),
                          entry.item->name, shape.dump(), offset, offset + entry.bytes);
    offset += entry.bytes;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data then begins at a multiple of 8
  if (header.size() > kHeaderLimit) throw InternalError("safetensors: the header is longer than the format allows");

  const std::size_t digits = header.find(header_checksum_pattern()) + header_checksum_pattern().size();
  header.replace(digits, 8, hex(header_checksum(header)));
  return header;
}

// ---------------------------------------------------------------------------------------------------- reading

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : path_(path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) fail("it does not exist");
    if (!std::filesystem::is_regular_file(status)) fail("it is not a regular file");
    file_.reset(std::fopen(path.c_str(), "rb"));
    if (!file_) fail(std::strerror(errno));
    size_ = std::filesystem::file_size(path, error);
    if (error) fail(error.message());
  }

  [[noreturn]] void fail(const std::string& cause) const {
    throw CheckpointError(fmt::format("cannot read {}: {}", path_.string(), cause));
  }

  std::uint64_t size() const { return size_; }

  void read(void* into, std::uint64_t count, std::string_view what) {
    if (count > 0 && std::fread(into, 1, count, file_.get()) != count) {
      fail(fmt::format("it ends within {} (truncated while it was read, or a read error)", what));
    }
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  std::uint64_t size_ = 0;
};

std::string read_header_text(Reader& reader) {
  if (reader.size() < 10) reader.fail(fmt::format("{} bytes are too few for a safetensors file", reader.size()));
  std::uint64_t length = 0;
  reader.read(&length, sizeof(length), "the header length");
  const std::uint64_t limit = std::min(kHeaderLimit, reader.size() - sizeof(length));
  if (length < 2 || length > limit) {
    reader.fail(fmt::format("the header length {} is not within 2 and {}: damaged, truncated or not a safetensors file",
                            length, limit));
  }
  std::string text(length, '\0');
  reader.read(text.data(), length, "the header");
  if (text.front() != '{') reader.fail("the header is not a JSON object");
  return text;
}

json parse_header(const Reader& reader, const std::string& text) {
  try {
    return parse_json<json>(text, {.bytes = kHeaderLimit, .depth = 3});
  } catch (const JsonError& error) {
    reader.fail(fmt::format("the header cannot be used: {}", error.what()));
  }
}

std::map<std::string, std::string> take_metadata(const Reader& reader, json& header) {
  std::map<std::string, std::string> metadata;
  const auto found = header.find("__metadata__");
  if (found == header.end()) return metadata;
  if (!found->is_object()) reader.fail("'__metadata__' is not a JSON object");
  for (const auto& [key, value] : found->items()) {
    if (!value.is_string()) reader.fail(fmt::format("the metadata '{}' is not a string", excerpt(key)));
    metadata[key] = value.get<std::string>();
  }
  header.erase(found);
  return metadata;
}

void check_header_checksum(const Reader& reader, std::string text, const std::string& expected) {
  const std::size_t digits = text.find(header_checksum_pattern());
  if (digits == std::string::npos || expected.size() != 8) reader.fail("the header checksum is malformed");
  text.replace(digits + header_checksum_pattern().size(), 8, hex(0));
  if (hex(header_checksum(text)) != expected) reader.fail("the header does not fit its checksum: the file is damaged");
}

struct Description {
  std::string name;
  const ItemType* item = nullptr;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

Description describe(const Reader& reader, const std::string& name, const json& value) {
  const auto refuse = [&](const std::string& cause) {
    reader.fail(fmt::format("tensor '{}': {}", excerpt(name), cause));
  };
  if (name.size() > kNameLimit || first_non_text(name) != std::string::npos) {
    refuse(fmt::format("the name is longer than {} bytes, or holds control characters", kNameLimit));
  }
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    refuse("expected exactly dtype, shape and data_offsets");
  }
  Description result;
  result.name = name;
  const json& type = value["dtype"];
  for (const ItemType& item : kItemTypes) {
    if (type.is_string() && type.get_ref<const std::string&>() == item.name) result.item = &item;
  }
  if (!result.item) refuse(fmt::format("the type {} is not known here", excerpt(type.dump())));

  const json& shape = value["shape"];
  if (!shape.is_array() || shape.size() > kDimensionLimit) refuse("the shape is not a list of at most 64 sizes");
  std::uint64_t padded = result.item->bytes, bytes = result.item->bytes;  // `padded` takes empty dimensions as 1
  for (const json& extent : shape) {
    if (!extent.is_number_unsigned()) refuse("the shape is not a list of sizes");
    const auto size = extent.get<std::uint64_t>();
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    if (size > 1 && padded > kMost / size) refuse("the shape is too large to address");
    padded *= std::max<std::uint64_t>(size, 1);
    bytes *= size;
    result.shape.push_back(static_cast<std::int64_t>(size));
  }

  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    refuse("data_offsets is not a pair of byte positions");
  }
  result.begin = offsets[0].get<std::uint64_t>();
  result.end = offsets[1].get<std::uint64_t>();
  if (result.end < result.begin || result.end - result.begin != bytes) {
    refuse(fmt::format("data_offsets [{}, {}] do not hold the {} bytes that type and shape need", result.begin,
                       result.end, bytes));
  }
  return result;
}

/// In the order of their data; together they cover it exactly.
std::vector<Description> describe_all(const Reader& reader, const json& header, std::uint64_t data_bytes) {
  std::vector<Description> all;
  for (const auto& [name, value] : header.items()) all.push_back(describe(reader, name, value));
  std::stable_sort(all.begin(), all.end(), [](const Description& a, const Description& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t position = 0;
  for (const Description& one : all) {
    if (one.begin != position) {
      reader.fail(fmt::format("tensor '{}' begins at byte {} of the data where {} was expected: a gap or an overlap",
                              excerpt(one.name), one.begin, position));
    }
    position = one.end;
  }
  if (position != data_bytes) {
    reader.fail(fmt::format("the header describes {} bytes of data, the file holds {}: {}", position, data_bytes,
                            position > data_bytes ? "it is truncated" : "something was appended"));
  }
  return all;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const std::vector<Entry> entries = entries_to_write(tensors);
  std::string header;
  try {
    header = header_to_write(entries, metadata);
  } catch (const json::exception& error) {
    throw InternalError(
        fmt::format("safetensors: a name or metadata of {} is not UTF-8 ({})", path.string(), error.what()));
  }
  write_file(path, [&](const AppendBytes& append) {
    const std::uint64_t length = header.size();
    append(&length, sizeof(length));
    append(header.data(), header.size());
    for (const Entry& entry : entries) {
      if (entry.bytes > 0) append(entry.data.const_data_ptr(), entry.bytes);
    }
  });
}

TensorFile read_safetensors(const std::filesystem::path& path, Checksums checksums) {
  Reader reader(path);
  const std::string text = read_header_text(reader);
  json header = parse_header(reader, text);
  TensorFile file;
  file.metadata = take_metadata(reader, header);

  const auto header_sum = file.metadata.extract(std::string(kHeaderChecksum));
  const auto tensor_sums = file.metadata.extract(std::string(kTensorChecksums));
  const auto other = file.metadata.lower_bound(std::string(kReserved));
  if (other != file.metadata.end() && other->first.starts_with(kReserved)) {
    reader.fail(
        fmt::format("its checksums '{}' are not known here: written by another version", excerpt(other->first)));
  }
  const bool checked = !header_sum.empty() && !tensor_sums.empty();
  if (!checked && (checksums == Checksums::required || !header_sum.empty() || !tensor_sums.empty())) {
    reader.fail("it has no checksums: not written by sage, or damaged");
  }
  json sums;
  if (checked) {
    check_header_checksum(reader, text, header_sum.mapped());
    try {
      sums = parse_json<json>(tensor_sums.mapped(), {.bytes = kHeaderLimit, .depth = 1});
    } catch (const JsonError& error) {
      reader.fail(fmt::format("the tensor checksums cannot be used: {}", error.what()));
    }
    if (!sums.is_object()) reader.fail("the tensor checksums are malformed");
  }

  for (const Description& one : describe_all(reader, header, reader.size() - sizeof(std::uint64_t) - text.size())) {
    at::Tensor tensor = at::empty(one.shape, at::TensorOptions().dtype(one.item->type).device(at::kCPU));
    const std::uint64_t bytes = one.end - one.begin;
    reader.read(tensor.mutable_data_ptr(), bytes, fmt::format("tensor '{}'", excerpt(one.name)));
    if (checked) {
      const auto expected = sums.find(one.name);
      if (expected == sums.end() || *expected != hex(crc32c(tensor.const_data_ptr(), bytes))) {
        reader.fail(fmt::format("tensor '{}' does not fit its checksum: the file is damaged", excerpt(one.name)));
      }
    }
    if (one.item->type == at::kBool) {  // other bytes are undefined behaviour for whoever reads them as bool
      const auto* values = static_cast<const unsigned char*>(tensor.const_data_ptr());
      if (std::any_of(values, values + bytes, [](unsigned char value) { return value > 1; })) {
        reader.fail(fmt::format("tensor '{}' is of type BOOL but holds other bytes than 0 and 1", excerpt(one.name)));
      }
    }
    file.tensors.push_back({one.name, std::move(tensor)});
  }
  return file;
}

}  // namespace sage
