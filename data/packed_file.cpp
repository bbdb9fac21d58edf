#include "data/packed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/bounded_json.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/text.h"

namespace sage {
namespace {

using nlohmann::json;
using Bytes = std::span<const std::uint8_t>;

class Mapped : public PackedFile {
 public:
  Mapped(Bytes bytes, std::string name) : PackedFile(bytes, std::move(name)), bytes_(bytes) {}
  ~Mapped() override { ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size()); }

 private:
  Bytes bytes_;
};

DataError damaged(const std::string& path, const std::string& why) {
  return DataError(fmt::format("{}: no whole packed data set: {}; write it again with `sage data pack`", path, why));
}

std::vector<float> positive_numbers(const json& list, const char* what, bool above_zero) {
  std::vector<float> values;
  if (!list.is_array()) throw JsonError(fmt::format("`{}` is no list", what));
  for (const json& value : list) {
    if (!value.is_number()) throw JsonError(fmt::format("`{}` holds what is no number", what));
    values.push_back(value.get<float>());
    if (!std::isfinite(values.back()) || values.back() < 0.0f || (above_zero && values.back() == 0.0f)) {
      throw JsonError(fmt::format("`{}` holds a number out of range", what));
    }
  }
  return values;
}

std::string short_text(const json& value, const char* what) {
  if (!value.is_string()) throw JsonError(fmt::format("`{}` is no text", what));
  std::string text = value.get<std::string>();
  if (text.size() > 4096 || first_non_text(text) != std::string::npos) {
    throw JsonError(fmt::format("`{}` is too long or no text", what));
  }
  return text;
}

PackedDescription parse_description(std::string_view text) {
  constexpr std::int64_t most_pixels = 1 << 14, most_records = std::int64_t{1} << 31;
  const json parsed = parse_json<json>(text);
  const auto at = [&](const char* key) -> const json& {
    if (!parsed.is_object() || !parsed.contains(key)) throw JsonError(fmt::format("`{}` is missing", key));
    return parsed.at(key);
  };
  PackedDescription description;
  if (whole_number(at("version"), "version") != 1) throw JsonError("it is of a later version of this program");
  description.name = short_text(at("name"), "name");
  const std::string kind = short_text(at("kind"), "kind");
  if (kind != "decoded" && kind != "encoded") throw JsonError("`kind` is neither decoded nor encoded");
  description.decoded = kind == "decoded";
  description.channels = whole_number(at("channels"), "channels", 1, 3);
  description.height = whole_number(at("height"), "height", 1, most_pixels);
  description.width = whole_number(at("width"), "width", 1, most_pixels);
  if (description.channels == 2) throw JsonError("images have neither one channel nor three");
  if (!description.decoded && (description.channels != 3 || description.height != description.width)) {
    throw JsonError("encoded images become RGB squares");
  }
  if (!at("margin").is_number()) throw JsonError("`margin` is no number");
  description.margin = at("margin").get<double>();
  if (!(description.margin >= 1.0 && description.margin <= 4.0)) throw JsonError("`margin` is not in 1..4");
  description.train = whole_number(at("train"), "train", 1, most_records);
  description.test = whole_number(at("test"), "test", 0, most_records);
  if (!at("class_names").is_array() || at("class_names").empty()) throw JsonError("`class_names` is no list");
  for (const json& name : at("class_names")) description.class_names.push_back(short_text(name, "class_names"));
  description.mean = positive_numbers(at("mean"), "mean", false);
  description.deviation = positive_numbers(at("deviation"), "deviation", true);
  const auto channels = static_cast<std::size_t>(description.channels);
  if (description.mean.size() != channels || description.deviation.size() != channels) {
    throw JsonError("statistics of another number of channels");
  }
  return description;
}

/// One split of a file with decoded records.
class DecodedRecords : public ImageSource {
 public:
  DecodedRecords(std::shared_ptr<const PackedFile> file, std::int64_t first, std::int64_t count)
      : file_(std::move(file)), first_(first), count_(count) {}
  std::int64_t size() const override { return count_; }
  std::int64_t channels() const override { return file_->description().channels; }
  std::int64_t height() const override { return file_->description().height; }
  std::int64_t width() const override { return file_->description().width; }
  std::string name(std::int64_t id) const override { return file_->name_of(first_ + id); }
  void read(std::int64_t id, std::uint8_t* target) const override {
    const Bytes bytes = file_->bytes_of(first_ + id);
    std::memcpy(target, bytes.data(), bytes.size());
  }
  void read_part(std::int64_t id, const ChoosePart& choose, std::uint8_t* target) const override {
    const Bytes bytes = file_->bytes_of(first_ + id);
    const PixelBox part = choose({height(), width()});
    const std::int64_t plane = height() * width();
    for (std::int64_t c = 0; c < channels(); ++c) {
      resize_bilinear({bytes.data() + c * plane, height(), width(), 1}, part, height(), width(),
                      {0, 0, height(), width()}, target + c * plane);
    }
  }
  void check(std::int64_t id) const override { file_->check(first_ + id); }
  std::vector<std::uint8_t> encoded(std::int64_t) const override {
    throw InternalError("decoded records hold no files");
  }
  std::int64_t bytes() const override { return file_->size() * 41; }

 private:
  std::shared_ptr<const PackedFile> file_;
  std::int64_t first_, count_;
};

/// One split of a file with the files of a folder.
class EncodedRecords : public EncodedImages {
 public:
  EncodedRecords(std::shared_ptr<const PackedFile> file, std::int64_t first, std::int64_t count,
                 const ViewOptions& view)
      : EncodedImages(view), file_(std::move(file)), first_(first), count_(count) {}
  std::int64_t size() const override { return count_; }
  std::string name(std::int64_t id) const override { return file_->name_of(first_ + id); }
  /// It decoded when it was packed, so the checksum says all.
  void check(std::int64_t id) const override { file_->check(first_ + id); }
  std::vector<std::uint8_t> encoded(std::int64_t id) const override {
    const Bytes bytes = file_->bytes_of(first_ + id);
    return {bytes.begin(), bytes.end()};
  }
  std::int64_t bytes() const override { return file_->size() * 41; }

 protected:
  void with_encoded(std::int64_t id, const std::function<void(Bytes)>& use) const override {
    use(file_->bytes_of(first_ + id));
  }

 private:
  std::shared_ptr<const PackedFile> file_;
  std::int64_t first_, count_;
};

}  // namespace

std::shared_ptr<const PackedFile> PackedFile::open(const std::filesystem::path& path) {
  const auto cannot = [&](const char* what) {
    return DataError(fmt::format("{}: {} ({})", path.string(), what, std::generic_category().message(errno)));
  };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw cannot("the packed file cannot be opened");
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
    ::close(descriptor);
    throw DataError(fmt::format("{}: no packed file, but a folder or an empty file", path.string()));
  }
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  const int error = errno;
  ::close(descriptor);
  errno = error;
  if (address == MAP_FAILED) throw cannot("the packed file cannot be mapped");
  try {
    auto file = std::make_shared<const Mapped>(Bytes{static_cast<const std::uint8_t*>(address), size}, path.string());
    ::madvise(address, size, MADV_RANDOM);  // batches are drawn at random
    return file;
  } catch (...) {
    ::munmap(address, size);
    throw;
  }
}

PackedFile::PackedFile(Bytes bytes, std::string name) : bytes_(bytes), path_(std::move(name)) {
  PackedTrailer trailer;
  if (bytes.size() < packed_magic.size() + sizeof(trailer) ||
      std::memcmp(bytes.data(), packed_magic.data(), packed_magic.size()) != 0) {
    throw damaged(path_, "it does not begin with SAGEPACK");
  }
  const std::size_t end = bytes.size() - sizeof(trailer);
  std::memcpy(&trailer, bytes.data() + end, sizeof(trailer));
  if (trailer.magic != packed_trailer_magic || trailer.own_checksum() != trailer.checksum) {
    throw damaged(path_, "its end is missing or damaged");
  }
  // The three parts lie one behind the other, up to the trailer.
  constexpr std::uint64_t most_records = std::uint64_t{1} << 31;
  if (trailer.records > most_records || trailer.index < packed_magic.size() || trailer.index > end ||
      trailer.records * sizeof(PackedEntry) > end - trailer.index ||
      trailer.names != trailer.index + trailer.records * sizeof(PackedEntry) || trailer.metadata < trailer.names ||
      trailer.metadata > end) {
    throw damaged(path_, "its parts overlap or lie outside of it");
  }
  const auto part = [&](std::uint64_t from, std::uint64_t to) { return bytes.subspan(from, to - from); };
  const Bytes index = part(trailer.index, trailer.names), metadata = part(trailer.metadata, end);
  names_ = part(trailer.names, trailer.metadata);
  if (crc32c(index.data(), index.size()) != trailer.index_checksum) throw damaged(path_, "its index is damaged");
  if (crc32c(names_.data(), names_.size()) != trailer.names_checksum) throw damaged(path_, "its names are damaged");
  if (crc32c(metadata.data(), metadata.size()) != trailer.metadata_checksum) {
    throw damaged(path_, "its metadata are damaged");
  }
  try {
    description_ = parse_description({reinterpret_cast<const char*>(metadata.data()), metadata.size()});
  } catch (const JsonError& error) {
    throw damaged(path_, fmt::format("its metadata are wrong: {}", error.what()));
  }
  if (static_cast<std::uint64_t>(description_.train + description_.test) != trailer.records) {
    throw damaged(path_, fmt::format("{} records, where its metadata say {} and {}", trailer.records,
                                     description_.train, description_.test));
  }
  const auto image_bytes = static_cast<std::uint64_t>(description_.channels * description_.height * description_.width);
  entries_.resize(trailer.records);
  std::memcpy(entries_.data(), index.data(), index.size());
  for (std::size_t record = 0; record < entries_.size(); ++record) {
    const PackedEntry& listed = entries_[record];
    const bool inside = listed.offset >= packed_magic.size() && listed.offset <= trailer.index &&
                        listed.bytes <= trailer.index - listed.offset && listed.name_offset <= names_.size() &&
                        listed.name_bytes <= names_.size() - listed.name_offset;
    if (!inside || listed.label >= description_.class_names.size() || listed.name_bytes > 4096 ||
        (description_.decoded && listed.bytes != 0 && listed.bytes != image_bytes)) {
      throw damaged(path_, fmt::format("record {} lies outside of it, or is of another size or class", record));
    }
  }
  checked_ = std::make_unique<std::atomic<bool>[]>(entries_.size());
}

const PackedEntry& PackedFile::entry(std::int64_t record) const {
  require(record >= 0 && record < size(), "PackedFile: a record that there is not");
  return entries_[static_cast<std::size_t>(record)];
}

std::string PackedFile::name_of(std::int64_t record) const {
  const PackedEntry& at = entry(record);
  const std::string_view name(reinterpret_cast<const char*>(names_.data()) + at.name_offset, at.name_bytes);
  return fmt::format("{}, record {} ({})", path_, record, excerpt(name));
}

std::span<const std::uint8_t> PackedFile::bytes_of(std::int64_t record) const {
  const PackedEntry& at = entry(record);
  if (at.bytes == 0) throw DataError(fmt::format("{}: did not decode when it was packed", name_of(record)));
  // Another thread may do the same meanwhile: the outcome is one.
  if (!checked_[static_cast<std::size_t>(record)].load(std::memory_order_relaxed)) check(record);
  return bytes_.subspan(at.offset, at.bytes);
}

void PackedFile::check(std::int64_t record) const {
  const PackedEntry& at = entry(record);
  if (at.bytes == 0) throw DataError(fmt::format("{}: did not decode when it was packed", name_of(record)));
  if (crc32c(bytes_.data() + at.offset, at.bytes) != at.checksum) {
    throw DataError(fmt::format("{}: damaged: its bytes do not have their checksum", name_of(record)));
  }
  checked_[static_cast<std::size_t>(record)].store(true, std::memory_order_relaxed);
}

Dataset read_packed_dataset(const std::filesystem::path& path, const ReadOptions& options) {
  const std::shared_ptr<const PackedFile> file = PackedFile::open(path);
  const PackedDescription& description = file->description();
  const std::int64_t side = options.image_size > 0 ? options.image_size : description.height;
  if (description.decoded && options.image_size > 0 && (side != description.height || side != description.width)) {
    throw ConfigError(fmt::format(
        "data.image_size: {} holds images decoded at {} x {} pixels, not {}: leave it out, or pack the files as they "
        "are (--jpeg)",
        path.string(), description.height, description.width, side));
  }
  Dataset dataset;
  dataset.name = description.name;
  dataset.class_names = description.class_names;
  dataset.class_count = static_cast<std::int64_t>(description.class_names.size());
  dataset.mean = description.mean;
  dataset.deviation = description.deviation;
  std::int64_t first = 0;
  for (const auto& [split, count] :
       {std::pair(&dataset.train, description.train), std::pair(&dataset.test, description.test)}) {
    for (std::int64_t id = 0; id < count; ++id) {
      split->labels.push_back(file->label(first + id));
      if (!file->is_left_out(first + id)) continue;
      if (!options.skip_corrupt) {
        throw DataError(fmt::format("{}: did not decode when it was packed; data.corrupt_images=skip leaves it out",
                                    file->name_of(first + id)));
      }
      split->unreadable.push_back(id);
    }
    if (description.decoded) {
      split->source = std::make_shared<const DecodedRecords>(file, first, count);
    } else {
      split->source = std::make_shared<const EncodedRecords>(file, first, count, ViewOptions{side, description.margin});
    }
    first += count;
  }
  return dataset;
}

}  // namespace sage
