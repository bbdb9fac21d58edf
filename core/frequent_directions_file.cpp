// FrequentDirections as bytes: a fixed header, the known squared norms, the rows in use, and a checksum of all before
// it.
#include <ATen/ops/all.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/checksum.h"
#include "core/error.h"
#include "core/frequent_directions.h"

namespace sage {
namespace {

static_assert(std::endian::native == std::endian::little, "sketches are stored in little-endian order");

constexpr char kMagic[8] = {'S', 'A', 'G', 'E', '-', 'F', 'D', '\n'};
constexpr std::int64_t kVersion = 2;
constexpr std::int64_t kMaxExtent = std::int64_t{1} << 40;  // of rows, columns and counts: no product overflows

/// Everything but tensors. Plain 8-byte fields, so that there is no padding.
struct Header {
  char magic[8];
  std::int64_t version;
  std::int64_t type;  // 4 or 8 bytes an element
  std::int64_t dimension, size, start_size, max_size, smallest_size;
  std::int64_t kept, filled, rows_seen, shrinks;
  double alpha, buffer, epsilon, error_bound, squared_norm;
};
static_assert(sizeof(Header) == 17 * 8);

[[noreturn]] void damaged(const std::string& what) {
  throw CheckpointError("not a whole Frequent Directions sketch: " + what);
}

}  // namespace

std::string FrequentDirections::serialize() const {
  const at::Tensor rows = buffer_.narrow(0, 0, filled_).cpu().contiguous();
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.type = static_cast<std::int64_t>(rows.element_size());
  header.dimension = dimension();
  header.size = rule_.size;
  header.start_size = options_.size;
  header.max_size = rule_.max_size;
  header.smallest_size = smallest_size_;
  header.kept = known_.size(0);
  header.filled = filled_;
  header.rows_seen = rows_seen_;
  header.shrinks = shrinks_;
  header.alpha = rule_.alpha;
  header.buffer = options_.buffer;
  header.epsilon = rule_.epsilon;
  header.error_bound = error_bound_;
  header.squared_norm = squared_norm_;

  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  bytes.append(static_cast<const char*>(known_.const_data_ptr()), known_.nbytes());
  bytes.append(static_cast<const char*>(rows.const_data_ptr()), rows.nbytes());
  const std::uint32_t checksum = crc32c(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  return bytes;
}

FrequentDirections FrequentDirections::deserialize(std::string_view bytes, at::Device device,
                                                   std::int64_t memory_limit) {
  Header header;
  std::uint32_t checksum;
  if (bytes.size() < sizeof header + sizeof checksum) damaged(fmt::format("only {} bytes", bytes.size()));
  std::memcpy(&header, bytes.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) damaged("it does not begin as one");
  if (header.version != kVersion) {
    damaged(fmt::format("it is of version {}, this program reads version {}", header.version, kVersion));
  }
  for (std::int64_t extent : {header.dimension, header.size, header.start_size, header.max_size, header.smallest_size,
                              header.kept, header.filled, header.rows_seen, header.shrinks}) {
    if (extent < 0 || extent > kMaxExtent) damaged(fmt::format("a count of {} in its header", extent));
  }
  // Compared in floating point, which cannot overflow, before any number of the header is believed.
  const double expected =
      static_cast<double>(sizeof header) + static_cast<double>(sizeof checksum) +
      8.0 * static_cast<double>(header.kept) +
      static_cast<double>(header.type) * static_cast<double>(header.filled) * static_cast<double>(header.dimension);
  if (static_cast<double>(bytes.size()) != expected) {
    damaged(fmt::format("{} bytes where its header says {:.0f}", bytes.size(), expected));
  }
  std::memcpy(&checksum, bytes.data() + bytes.size() - sizeof checksum, sizeof checksum);
  if (crc32c(bytes.data(), bytes.size() - sizeof checksum) != checksum) damaged("its checksum does not fit");
  if ((header.type != 4 && header.type != 8) || header.kept > header.filled || header.rows_seen < header.kept ||
      header.size < header.start_size || (header.size > header.start_size && header.size > header.max_size) ||
      !std::isfinite(header.error_bound) || !(header.error_bound >= 0.0) || !std::isfinite(header.squared_norm) ||
      !(header.squared_norm >= 0.0) || !std::isfinite(header.epsilon)) {
    damaged("its header contradicts itself");
  }
  // The buffer is larger than what the file holds of it. (The constructor refuses buffers of more than 4 sizes.)
  const double memory = std::clamp(header.buffer, 2.0, 4.0) * static_cast<double>(header.size) *
                        static_cast<double>(header.dimension) * static_cast<double>(header.type);
  if (memory > static_cast<double>(memory_limit)) {
    damaged(fmt::format("its {} rows of {} columns would need {:.0f} bytes, more than {}", header.size,
                        header.dimension, memory, memory_limit));
  }

  FrequentDirectionsOptions options;
  options.dimension = header.dimension;
  options.size = header.start_size;
  options.alpha = header.alpha;
  options.buffer = header.buffer;
  options.epsilon = header.epsilon;
  options.max_size = header.max_size;
  options.device = device;
  options.type = header.type == 8 ? at::kDouble : at::kFloat;
  FrequentDirections sketch = [&] {
    try {
      return FrequentDirections(options);
    } catch (const ConfigError& error) {
      damaged(error.what());
    }
  }();
  if (header.size > header.start_size) sketch.grow(header.size);
  if (header.filled > sketch.buffer_rows()) damaged("more rows than its buffer holds");

  const char* next = bytes.data() + sizeof header;
  sketch.known_ = at::empty({header.kept}, at::kDouble);
  if (header.kept > 0) std::memcpy(sketch.known_.mutable_data_ptr(), next, sketch.known_.nbytes());
  const double* known = sketch.known_.const_data_ptr<double>();
  for (std::int64_t i = 0; i < header.kept; ++i) {
    if (!std::isfinite(known[i]) || known[i] < 0.0)
      damaged(fmt::format("the squared norm of row {} is {}", i, known[i]));
  }
  next += sketch.known_.nbytes();
  at::Tensor rows = at::empty({header.filled, header.dimension}, options.type);
  if (rows.nbytes() > 0) std::memcpy(rows.mutable_data_ptr(), next, rows.nbytes());
  if (!at::isfinite(rows).all().item<bool>()) damaged("a row is not finite");
  sketch.filled_ = header.filled;
  sketch.buffer_.narrow(0, 0, header.filled).copy_(rows);
  sketch.rows_seen_ = header.rows_seen;
  sketch.shrinks_ = header.shrinks;
  sketch.smallest_size_ = header.smallest_size;
  sketch.error_bound_ = header.error_bound;
  sketch.squared_norm_ = header.squared_norm;
  return sketch;
}

}  // namespace sage
