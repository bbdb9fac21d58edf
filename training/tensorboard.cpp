#include "training/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"

namespace sage {
namespace {

// ------------------------------------------------------------------------------ protocol buffer wire format
// A field is a key (number x 8 + kind) and its value; kinds: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.

void put_varint(std::string& to, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>((value & 0x7F) | 0x80);
  to += static_cast<char>(value);
}

template <class Number>
void put_raw(std::string& to, Number value) {
  char bytes[sizeof(Number)];
  std::memcpy(bytes, &value, sizeof(Number));
  to.append(bytes, sizeof(Number));
}

void put_integer(std::string& to, std::uint32_t field, std::int64_t value) {
  put_varint(to, field << 3 | 0);
  put_varint(to, static_cast<std::uint64_t>(value));
}
void put_double(std::string& to, std::uint32_t field, double value) {
  put_varint(to, field << 3 | 1);
  put_raw(to, value);
}
void put_float(std::string& to, std::uint32_t field, float value) {
  put_varint(to, field << 3 | 5);
  put_raw(to, value);
}
void put_bytes(std::string& to, std::uint32_t field, std::string_view value) {
  put_varint(to, field << 3 | 2);
  put_varint(to, value.size());
  to += value;
}
void put_doubles(std::string& to, std::uint32_t field, std::span<const double> values) {
  std::string packed;
  for (double value : values) put_raw(packed, value);
  put_bytes(to, field, packed);
}

// Field numbers of the messages.
namespace event_field {
constexpr std::uint32_t wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7;
}
namespace value_field {
constexpr std::uint32_t tag = 1, simple_value = 2, image = 4, histogram = 5;
}

/// TFRecord stores checksums rotated, so that a checksum of data that holds checksums stays good.
std::uint32_t masked(std::uint32_t checksum) { return std::rotr(checksum, 15) + 0xA282EAD8U; }

std::string framed(const std::string& record) {
  std::string result;
  put_raw<std::uint64_t>(result, record.size());
  put_raw(result, masked(crc32c(result.data(), 8)));
  result += record;
  put_raw(result, masked(crc32c(record.data(), record.size())));
  return result;
}

/// Event field 5: a summary with one value.
std::string summary(std::string_view tag, const std::string& value_fields) {
  std::string value, one, field;
  put_bytes(value, value_field::tag, tag);
  value += value_fields;
  put_bytes(one, 1, value);
  put_bytes(field, event_field::summary, one);
  return field;
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Upper ends of the buckets: 0 in the middle, then 1e-12 x 1.1^k to both sides.
std::vector<double> bucket_limits() {
  std::vector<double> positive;
  for (double limit = 1e-12; limit < 1e20; limit *= 1.1) positive.push_back(limit);
  positive.push_back(std::numeric_limits<double>::max());
  std::vector<double> limits;
  for (auto limit = positive.rbegin(); limit != positive.rend(); ++limit) limits.push_back(-*limit);
  limits.push_back(0.0);
  limits.insert(limits.end(), positive.begin(), positive.end());
  return limits;
}

void append_chunk(std::string& png, std::string_view kind, std::string_view data) {
  const auto put_big_endian = [&png](std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) png += static_cast<char>((value >> shift) & 0xFF);
  };
  put_big_endian(static_cast<std::uint32_t>(data.size()));
  std::string checked(kind);
  checked += data;
  png += checked;
  put_big_endian(static_cast<std::uint32_t>(
      crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()))));
}

}  // namespace

struct EventWriter::File {
  std::FILE* handle = nullptr;
  ~File() {
    if (handle) std::fclose(handle);
  }
};

EventWriter::EventWriter(const std::filesystem::path& folder, std::optional<std::int64_t> resumed_at_step)
    : file_(std::make_unique<File>()) {
  make_folder(folder);
  char host[256] = "localhost";
  gethostname(host, sizeof(host) - 1);
  static std::atomic<int> made{0};  // tells the files of one second and process apart
  path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<std::int64_t>(wall_time()), host,
                               getpid(), made.fetch_add(1));
  file_->handle = std::fopen(path_.c_str(), "wbe");
  if (!file_->handle) {
    throw EnvironmentError(fmt::format("{}: cannot be opened for writing ({})", path_.string(), std::strerror(errno)));
  }
  std::string version;
  put_bytes(version, event_field::file_version, "brain.Event:2");
  event(version, {});
  if (resumed_at_step) {
    std::string start, field;
    put_integer(start, 1, 1);  // SessionLog.status = START
    put_bytes(field, event_field::session_log, start);
    event(field, resumed_at_step);
  }
  flush();
}

EventWriter::~EventWriter() = default;

void EventWriter::event(std::string_view payload_field, std::optional<std::int64_t> step) {
  std::string message;
  put_double(message, event_field::wall_time, wall_time());
  if (step) put_integer(message, event_field::step, *step);
  message += payload_field;
  const std::string record = framed(message);
  std::fwrite(record.data(), 1, record.size(), file_->handle);  // errors stay noted in the handle until flush()
}

void EventWriter::flush() {
  if (std::fflush(file_->handle) != 0 || std::ferror(file_->handle)) {
    throw EnvironmentError(
        fmt::format("{}: cannot write ({}); check free space and permissions", path_.string(), std::strerror(errno)));
  }
}

void EventWriter::scalar(std::string_view tag, double value, std::int64_t step) {
  std::string field;
  put_float(field, value_field::simple_value, static_cast<float>(value));
  event(summary(tag, field), step);
}

void EventWriter::histogram(std::string_view tag, std::span<const float> values, std::int64_t step) {
  static const std::vector<double> limits = bucket_limits();
  std::vector<double> counts(limits.size(), 0.0);
  double least = std::numeric_limits<double>::max(), most = -least, sum = 0.0, squares = 0.0, number = 0.0;
  for (const float value : values) {
    if (!std::isfinite(value)) continue;
    const double x = value;
    const auto bucket = std::upper_bound(limits.begin(), limits.end(), x) - limits.begin();
    ++counts[static_cast<std::size_t>(std::min<std::ptrdiff_t>(bucket, std::ssize(limits) - 1))];
    least = std::min(least, x);
    most = std::max(most, x);
    sum += x;
    squares += x * x;
    ++number;
  }
  if (number == 0.0) return;
  // Only the filled stretch is written, with one empty bucket below so that its lower end is known.
  const auto filled = [](double count) { return count > 0.0; };
  auto first = std::find_if(counts.begin(), counts.end(), filled) - counts.begin();
  const auto last = std::ssize(counts) - 1 - (std::find_if(counts.rbegin(), counts.rend(), filled) - counts.rbegin());
  first = std::max<std::ptrdiff_t>(first - 1, 0);
  const auto length = static_cast<std::size_t>(last - first + 1);
  std::string message, field;
  put_double(message, 1, least);
  put_double(message, 2, most);
  put_double(message, 3, number);
  put_double(message, 4, sum);
  put_double(message, 5, squares);
  put_doubles(message, 6, std::span(limits).subspan(static_cast<std::size_t>(first), length));
  put_doubles(message, 7, std::span(counts).subspan(static_cast<std::size_t>(first), length));
  put_bytes(field, value_field::histogram, message);
  event(summary(tag, field), step);
}

void EventWriter::image(std::string_view tag, std::span<const std::uint8_t> pixels, std::int64_t width,
                        std::int64_t height, std::int64_t channels, std::int64_t step) {
  std::string message, field;
  put_integer(message, 1, height);
  put_integer(message, 2, width);
  put_integer(message, 3, channels);  // the number of channels is the code of its colour space
  put_bytes(message, 4, encode_png(pixels, width, height, channels));
  put_bytes(field, value_field::image, message);
  event(summary(tag, field), step);
}

std::string encode_png(std::span<const std::uint8_t> pixels, std::int64_t width, std::int64_t height,
                       std::int64_t channels) {
  require(width > 0 && height > 0 && (channels == 1 || channels == 3), "encode_png: width, height or channels");
  const auto row = static_cast<std::size_t>(width * channels);
  require(pixels.size() == row * static_cast<std::size_t>(height), "encode_png: number of bytes");

  std::string header;
  for (const std::int64_t extent : {width, height}) {
    for (int shift = 24; shift >= 0; shift -= 8) header += static_cast<char>((extent >> shift) & 0xFF);
  }
  header += {8, static_cast<char>(channels == 3 ? 2 : 0), 0, 0, 0};  // bits, colour type, deflate, filter, no interlace
  std::string rows;
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    rows += '\0';  // this row is not filtered
    rows.append(reinterpret_cast<const char*>(pixels.data()) + y * row, row);
  }
  uLongf packed_size = compressBound(rows.size());
  std::string packed(packed_size, '\0');
  const int result = compress2(reinterpret_cast<Bytef*>(packed.data()), &packed_size,
                               reinterpret_cast<const Bytef*>(rows.data()), rows.size(), Z_DEFAULT_COMPRESSION);
  require(result == Z_OK, "encode_png: zlib failed");
  packed.resize(packed_size);

  std::string png = "\x89PNG\r\n\x1a\n";
  append_chunk(png, "IHDR", header);
  append_chunk(png, "IDAT", packed);
  append_chunk(png, "IEND", "");
  return png;
}

}  // namespace sage
