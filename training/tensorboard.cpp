#include "training/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

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
#include "data/png.h"

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
  const auto from = static_cast<std::size_t>(first);
  histogram_event(tag, {least, most, number, sum, squares}, std::span(limits).subspan(from, length),
                  std::span(counts).subspan(from, length), step);
}

void EventWriter::histogram_event(std::string_view tag, const std::array<double, 5>& moments,
                                  std::span<const double> limits, std::span<const double> counts, std::int64_t step) {
  std::string message, field;
  for (std::uint32_t i = 0; i < moments.size(); ++i) put_double(message, i + 1, moments[i]);
  put_doubles(message, 6, limits);
  put_doubles(message, 7, counts);
  put_bytes(field, value_field::histogram, message);
  event(summary(tag, field), step);
}

void EventWriter::class_counts(std::string_view tag, std::span<const std::int64_t> counts, std::int64_t step) {
  // Bucket c ends half-way to the next class, so that each class has one of its own.
  std::vector<double> limits{-0.5}, filled{0.0};
  double number = 0.0, sum = 0.0, squares = 0.0, least = 0.0, most = 0.0;
  for (std::size_t c = 0; c < counts.size(); ++c) {
    const auto label = static_cast<double>(c), count = static_cast<double>(counts[c]);
    limits.push_back(label + 0.5);
    filled.push_back(count);
    if (count == 0.0) continue;
    if (number == 0.0) least = label;
    most = label;
    number += count;
    sum += count * label;
    squares += count * label * label;
  }
  if (number == 0.0) return;
  histogram_event(tag, {least, most, number, sum, squares}, limits, filled, step);
}

void EventWriter::image(std::string_view tag, const at::Tensor& pixels, std::int64_t step) {
  const std::string png = encode_png(pixels);
  std::string message, field;
  put_integer(message, 1, pixels.size(-2));
  put_integer(message, 2, pixels.size(-1));
  put_integer(message, 3, pixels.dim() == 3 ? pixels.size(0) : 1);  // the number of channels is their code
  put_bytes(message, 4, png);
  put_bytes(field, value_field::image, message);
  event(summary(tag, field), step);
}

}  // namespace sage
