#include "data/packed_file.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "data/files.h"
#include "data/image_store.h"
#include "data/images.h"
#include "data/registry.h"
#include "data/summary.h"

namespace sage {
namespace {

using test::expect_error;
using test::TemporaryFolder;
using test::write_bytes;

class PackedFileTest : public ::testing::Test {
 protected:
  PackedFileTest() {
    int seed = 0;
    for (const char* name : {"train/a/1.jpg", "train/a/2.jpg", "train/b/3.jpg", "train/b/4.jpg", "val/a/5.jpg"}) {
      write_bytes(folder_ / name, test::photo(50, 40 + seed, seed));
      ++seed;
    }
    config_.name = "image_folder";
    config_.path = folder_.path().string();
    config_.image_size = 20;
  }
  DataConfig packed(bool decoded) {
    DataConfig config = config_;
    config.packed = (folder_ / (decoded ? "decoded.sage" : "files.sage")).string();
    summary_ = pack_dataset(config_, {.decoded = decoded}, config.packed);
    config.path.clear();
    return config;
  }
  static at::Tensor images(const Dataset& dataset, const AugmentOptions& options = {}) {
    const ImageStore store(dataset, dataset.train, at::kCPU, false);
    return store.augmented(std::vector<std::int64_t>{0, 1, 2, 3}, {options, 1, 1});
  }

  TemporaryFolder folder_;
  DataConfig config_;
  PackSummary summary_;
};

TEST_F(PackedFileTest, HoldsWhatTheFolderHolds) {
  const Dataset folder = load_dataset(config_);
  for (const bool decoded : {true, false}) {
    const DataConfig config = packed(decoded);
    EXPECT_EQ(summary_.train, 4);
    EXPECT_EQ(summary_.test, 1);
    EXPECT_EQ(summary_.left_out, 0);
    EXPECT_EQ(summary_.bytes, std::filesystem::file_size(config.packed));
    const Dataset dataset = load_dataset(config);
    EXPECT_EQ(dataset.name, "image_folder");
    EXPECT_EQ(dataset.class_names, folder.class_names);
    EXPECT_EQ(dataset.train.labels, folder.train.labels);
    EXPECT_EQ(dataset.test.labels, folder.test.labels);
    EXPECT_EQ(dataset.mean, folder.mean);
    EXPECT_EQ(dataset.deviation, folder.deviation);
    EXPECT_EQ(dataset.height(), 20);
    EXPECT_TRUE(at::equal(images(dataset), images(folder)));
    EXPECT_NE(dataset.train.source->name(2).find("record 2 (train/b/3.jpg)"), std::string::npos)
        << dataset.train.source->name(2);
    const DatasetSummary summary = verify_dataset(config);
    EXPECT_EQ(summary.unreadable, 0);
    ASSERT_EQ(summary.files.size(), 1u);
    EXPECT_EQ(summary.files[0].path, config.packed);
  }
}

/// Files can be used at another size, and cut where the photo is; decoded records are what they are.
TEST_F(PackedFileTest, FilesKeepEveryPixel) {
  AugmentOptions options;
  options.random_resized_crop = true;
  DataConfig cropping = config_;
  cropping.augment.random_resized_crop = true;
  const Dataset folder = load_dataset(cropping);
  DataConfig files = packed(false), decoded = packed(true);
  Dataset from_files = load_dataset(files);
  from_files.mean = folder.mean;
  from_files.deviation = folder.deviation;
  EXPECT_TRUE(at::equal(images(from_files, options), images(folder, options)));
  EXPECT_EQ(images(load_dataset(decoded), options).sizes(), (std::vector<std::int64_t>{4, 3, 20, 20}));
  files.image_size = decoded.image_size = 12;
  EXPECT_EQ(load_dataset(files).width(), 12);
  expect_error<ConfigError>([&] { load_dataset(decoded); }, {"data.image_size", "20 x 20", "--jpeg"});
  files.name = "imagenet";
  expect_error<ConfigError>([&] { load_dataset(files); }, {"data.packed", "image_folder", "imagenet"});
}

TEST_F(PackedFileTest, HoldsOtherDataSetsDecoded) {
  test::write_gzip(folder_ / "digits.csv.gz", test::digits_rows(1797));
  DataConfig digits;
  digits.name = "digits";
  digits.path = folder_.path().string();
  const auto out = folder_ / "digits.sage";
  pack_dataset(digits, {}, out);
  const Dataset plain = load_dataset(digits);
  digits.packed = out.string();
  const Dataset dataset = load_dataset(digits);
  EXPECT_EQ(dataset.channels(), 1);
  EXPECT_EQ(dataset.mean, plain.mean);
  EXPECT_TRUE(at::equal(images(dataset), images(plain)));
  digits.packed.clear();
  expect_error<ConfigError>([&] { pack_dataset(digits, {.decoded = false}, out); }, {"digits", "--decoded"});
}

TEST_F(PackedFileTest, ADamagedRecordIsNamed) {
  for (const bool decoded : {true, false}) {
    DataConfig config = packed(decoded);
    std::string bytes = test::read_bytes(config.packed);
    // Record 1 lies behind the magic number and record 0.
    const std::size_t second = 8 + (decoded ? 3 * 20 * 20 : std::filesystem::file_size(folder_ / "train/a/1.jpg"));
    bytes[second + 100] ^= 4;
    write_bytes(config.packed, bytes);
    const Dataset dataset = load_dataset(config);
    expect_error<DataError>([&] { images(dataset); }, {"record 1 (train/a/2.jpg)", "checksum", "corrupt_images=skip"});
    EXPECT_EQ(verify_dataset(config).unreadable, 1);
  }
}

TEST_F(PackedFileTest, LeavesOutWhatDoesNotDecode) {
  write_bytes(folder_ / "train/b/3.jpg", "no image");
  expect_error<DataError>([&] { packed(true); }, {"train/b/3.jpg", "does not decode"});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "decoded.sage")) << "whole or not there";
  config_.corrupt_images = "skip";
  for (const bool decoded : {true, false}) {
    DataConfig config = packed(decoded);
    EXPECT_EQ(summary_.left_out, 1);
    EXPECT_EQ(load_dataset(config).train.unreadable, std::vector<std::int64_t>{2});
    EXPECT_EQ(load_dataset(config).train.labels, (std::vector<std::int64_t>{0, 0, 1, 1})) << "ids stay";
    config.corrupt_images = "fatal";
    expect_error<DataError>([&] { load_dataset(config); }, {"record 2 (train/b/3.jpg)", "corrupt_images=skip"});
  }
}

TEST_F(PackedFileTest, EveryCutAndEveryChangedByteOfTheFrameIsRefused) {
  const DataConfig config = packed(false);
  const std::string whole = test::read_bytes(config.packed);
  const auto open = [](const std::string& bytes) {
    PackedFile(std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()), "x.sage");
  };
  EXPECT_NO_THROW(open(whole));
  PackedTrailer trailer;
  std::memcpy(&trailer, whole.data() + whole.size() - sizeof(trailer), sizeof(trailer));
  for (std::size_t length = 0; length < whole.size(); length += length < 100 ? 1 : 97) {
    EXPECT_THROW(open(whole.substr(0, length)), DataError) << length;
  }
  for (std::size_t at = trailer.index; at < whole.size() - 4; ++at) {
    std::string changed = whole;
    changed[at] ^= 16;
    EXPECT_THROW(open(changed), DataError) << at;
  }
  EXPECT_THROW(PackedFile::open(folder_ / "nothing.sage"), DataError);
  EXPECT_THROW(PackedFile::open(folder_.path()), DataError);
}

}  // namespace
}  // namespace sage
