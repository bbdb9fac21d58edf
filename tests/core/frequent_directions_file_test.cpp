// Sketches from files that were made to do harm: their checksum fits.
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "core/checksum.h"
#include "core/error.h"
#include "core/frequent_directions.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

constexpr std::size_t type_field = 2, dimension_field = 3, size_field = 4, start_size_field = 5, filled_field = 9,
                      alpha_field = 12, buffer_field = 13, squared_norm_field = 16, fields = 17;

std::string sketch_bytes() {
  FrequentDirections sketch({.dimension = 3, .size = 4});
  sketch.update(at::ones({2, 3}, at::kFloat));
  return sketch.serialize();
}

/// The refusal after `value` was written at 8-byte field `field` and the checksum set right.
template <class Value>
std::string refusal(std::size_t field, Value value, std::int64_t memory_limit = std::int64_t{1} << 40) {
  std::string bytes = sketch_bytes();
  std::memcpy(bytes.data() + 8 * field, &value, sizeof value);
  const std::size_t end = bytes.size() - sizeof(std::uint32_t);
  const std::uint32_t checksum = crc32c(bytes.data(), end);
  std::memcpy(bytes.data() + end, &checksum, sizeof checksum);
  return message_of<CheckpointError>([&] { FrequentDirections::deserialize(bytes, at::kCPU, memory_limit); });
}

TEST(HostileSketch, IsRefusedByItsCause) {
  constexpr std::int64_t large = std::int64_t{1} << 40;
  constexpr float infinite = std::numeric_limits<float>::infinity();
  EXPECT_EQ(refusal(type_field, std::int64_t{4}), "") << "nothing was changed";
  EXPECT_TRUE(contains(refusal(filled_field, std::int64_t{-1}), "a count of -1"));
  EXPECT_TRUE(contains(refusal(filled_field, large), "bytes where its header says"));
  EXPECT_TRUE(contains(refusal(dimension_field, large), "bytes where its header says"));
  EXPECT_TRUE(contains(refusal(start_size_field, large), "contradicts itself"));
  EXPECT_TRUE(contains(refusal(size_field, std::int64_t{64}), "contradicts itself")) << "grown, but of a fixed size";
  EXPECT_TRUE(contains(refusal(alpha_field, std::numeric_limits<double>::quiet_NaN()), "sketch.alpha"));
  EXPECT_TRUE(contains(refusal(alpha_field, 1.5), "sketch.alpha"));
  EXPECT_TRUE(contains(refusal(buffer_field, std::numeric_limits<double>::quiet_NaN()), "buffer"));
  EXPECT_TRUE(contains(refusal(buffer_field, 1e300), "buffer"));
  EXPECT_TRUE(contains(refusal(squared_norm_field, -1.0), "contradicts itself"));
  EXPECT_TRUE(contains(refusal(fields, infinite), "a row is not finite"));
  EXPECT_TRUE(contains(refusal(type_field, std::int64_t{4}, 50), "would need 96 bytes, more than 50"));
}

}  // namespace
}  // namespace sage
