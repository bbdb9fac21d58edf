// The framing and its checksums; that TensorBoard itself reads these files is checked in peer_test.py.
#include "training/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "core/checksum.h"
#include "core/error.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::bytes_of;
using testing::contains;

class Tensorboard : public testing::TemporaryFolder {};

/// Payloads of all records; fails where a length or checksum is wrong.
std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  const auto word = [&](std::size_t at) {
    std::uint32_t value;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
  };
  const auto masked = [&](std::size_t at, std::size_t count) {
    const std::uint32_t plain = crc32c(bytes.data() + at, count);
    return ((plain >> 15) | (plain << 17)) + 0xa282ead8U;
  };
  std::size_t at = 0;
  while (at < bytes.size()) {
    std::uint64_t length = 0;
    if (bytes.size() - at < 16) break;
    std::memcpy(&length, bytes.data() + at, 8);
    if (length > bytes.size() - at - 16 || word(at + 8) != masked(at, 8)) break;
    if (word(at + 12 + length) != masked(at + 12, length)) break;
    records.push_back(bytes.substr(at + 12, length));
    at += 16 + length;
  }
  EXPECT_EQ(at, bytes.size()) << "every byte belongs to a good record";
  return records;
}

TEST_F(Tensorboard, RecordsAreFramedWithGoodChecksums) {
  EventWriter writer(folder_ / "train");
  for (int step = 0; step < 5; ++step) writer.scalar("loss", 0.5 * step, step);
  writer.flush();
  const auto records = records_of(bytes_of(writer.path()));
  ASSERT_EQ(records.size(), 6U);
  EXPECT_TRUE(contains(records[0], "brain.Event:2"));
  for (int step = 0; step < 5; ++step) {
    const std::string& record = records[static_cast<std::size_t>(step) + 1];
    // wall_time (9 bytes), step (2), summary header (2), value header (2), tag (2 + 4), simple_value (1 + 4)
    ASSERT_EQ(record.size(), 26U);
    EXPECT_EQ(record.substr(9, 2), std::string({'\x10', static_cast<char>(step)}));
    EXPECT_EQ(record.substr(11, 10), std::string("\x2a\x0d\x0a\x0b\x0a\x04loss", 10));
    float value;
    std::memcpy(&value, record.data() + 22, 4);
    EXPECT_EQ(record[21], '\x15');
    EXPECT_EQ(value, 0.5F * static_cast<float>(step));
  }
}

TEST_F(Tensorboard, EveryWriterHasAFileOfItsOwn) {
  const EventWriter first(folder_), second(folder_);
  EXPECT_NE(first.path(), second.path());
  EXPECT_TRUE(contains(first.path().filename().string(), "events.out.tfevents."));
}

TEST_F(Tensorboard, HistogramsAndImagesAreWritten) {
  EventWriter writer(folder_);
  const std::vector<float> values{-1.0F, 0.0F, 0.5F, 0.5F, std::numeric_limits<float>::quiet_NaN(), 1e30F};
  writer.histogram("scores", values, 1);
  writer.histogram("nothing", {}, 1);
  const std::vector<std::int64_t> sizes{3, 0, 2}, none{0, 0};
  writer.class_counts("classes", sizes, 1);
  writer.class_counts("nothing", none, 1);
  writer.image("samples", at::full({3, 2, 2}, 200, at::kByte), 1);
  writer.flush();
  EXPECT_EQ(records_of(bytes_of(writer.path())).size(), 4U) << "an empty histogram is no event";
}

TEST_F(Tensorboard, AFullDiskIsAnErrorNotSilence) {
  EventWriter writer(folder_);
  const testing::FullDisk full(200);
  for (int step = 0; step < 100; ++step) writer.scalar("loss", 1.0, step);
  EXPECT_THROW(writer.flush(), EnvironmentError);
}

TEST_F(Tensorboard, AForbiddenFolderIsNamed) {
  const testing::ReadOnlyFolder forbidden(folder_);
  EXPECT_TRUE(contains(testing::message_of<EnvironmentError>([&] { EventWriter writer(folder_ / "train"); }),
                       folder_.string()));
}

}  // namespace
}  // namespace sage
