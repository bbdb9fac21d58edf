// Readers on small files made here: what they read, and what every kind of bad file gets.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "data/byte_reader.h"
#include "data/cifar.h"
#include "data/digits.h"
#include "data/format.h"
#include "data/idx.h"
#include "files.h"

namespace sage {
namespace {

using test::expect_error;
using test::TemporaryFolder;
const ReadOptions partial{.allow_partial = true};

void write_idx(const TemporaryFolder& folder, bool gzip = false, bool dotted = false) {
  const std::string mark = dotted ? ".idx" : "-idx", end = gzip ? ".gz" : "";
  const auto write = gzip ? test::write_gzip : test::write_bytes;
  write(folder / ("train-images" + mark + "3-ubyte" + end), test::idx_images(20));
  write(folder / ("train-labels" + mark + "1-ubyte" + end), test::idx_labels(20));
  write(folder / ("t10k-images" + mark + "3-ubyte" + end), test::idx_images(7));
  write(folder / ("t10k-labels" + mark + "1-ubyte" + end), test::idx_labels(7));
}

void write_cifar10(const TemporaryFolder& folder) {
  for (int b = 1; b <= 5; ++b) {
    test::write_bytes(folder / ("data_batch_" + std::to_string(b) + ".bin"), test::cifar_records(b, 1));
  }
  test::write_bytes(folder / "test_batch.bin", test::cifar_records(4, 1));
}

void expect_pixels(const at::Tensor& images, std::int64_t image, std::int64_t written_as) {
  const auto* bytes = images.const_data_ptr<std::uint8_t>() + image * images[0].numel();
  for (std::int64_t p = 0; p < images[0].numel(); ++p) ASSERT_EQ(bytes[p], test::pixel(written_as, p)) << p;
}

TEST(IdxReader, ReadsEverySpelling) {
  for (const bool gzip : {false, true}) {
    for (const bool dotted : {false, true}) {
      TemporaryFolder folder;
      write_idx(folder, gzip, dotted);
      const Dataset dataset = read_fashion_mnist(folder.path(), partial);
      EXPECT_EQ(dataset.train.images.sizes(), (std::vector<std::int64_t>{20, 1, 28, 28}));
      EXPECT_EQ(dataset.test.size(), 7);
      EXPECT_EQ(dataset.train.labels[13], 3);
      EXPECT_EQ(dataset.class_names.at(9), "Ankle boot");
      expect_pixels(dataset.train.images, 19, 19);
      expect_pixels(dataset.test.images, 6, 6);
    }
  }
}

TEST(IdxReader, RefusesBadFiles) {
  const auto with = [](const char* file, const std::string& bytes, ReadOptions options,
                       std::initializer_list<const char*> parts) {
    TemporaryFolder folder;
    write_idx(folder);
    test::write_bytes(folder / file, bytes);
    expect_error<DataError>([&] { read_mnist(folder.path(), options); }, parts);
  };
  const char* images = "train-images-idx3-ubyte";
  const char* labels = "train-labels-idx1-ubyte";
  const std::string good = test::idx_images(20);
  with(images, good, {}, {images, "20 records", "60000", "data.allow_partial"});
  with(images, "", partial, {images, "empty"});
  with(images, good.substr(0, 6), partial, {images, "header"});
  with(images, good.substr(0, 16 + 784 * 3 + 5), partial, {images, "record 3", "cut short"});
  with(images, good + "x", partial, {images, "more data", "record 19"});
  with(images, test::idx_labels(20), partial, {images, "magic", "0x00000801", "0x00000803"});
  with(images, test::idx_images(20, 27), partial, {images, "27 x 27"});
  with(images, test::idx_images(19), partial, {labels, "20 labels", "19 images"});
  // A header that promises 4 thousand million images: refused by its number, not by running out of memory.
  std::string huge = good;
  huge.replace(4, 4, "\xff\xff\xff\xff");
  with(images, huge, partial, {images, "4294967295"});
  std::string wrong_label = test::idx_labels(20);
  wrong_label[8 + 17] = 10;
  with(labels, wrong_label, partial, {labels, "record 17", "label 10", "not below 10"});
}

TEST(IdxReader, MissingFileIsNamed) {
  TemporaryFolder folder;
  write_idx(folder);
  std::filesystem::remove(folder / "t10k-labels-idx1-ubyte");
  expect_error<DataError>([&] { read_mnist(folder.path(), partial); }, {"t10k-labels-idx1-ubyte", "missing"});
}

TEST(IdxReader, DamagedGzip) {
  TemporaryFolder folder;
  write_idx(folder, /*gzip=*/true);
  const auto path = folder / "train-images-idx3-ubyte.gz";
  const std::string good = test::read_bytes(path);
  test::write_bytes(path, good.substr(0, good.size() / 2));
  expect_error<DataError>([&] { read_mnist(folder.path(), partial); }, {"train-images-idx3-ubyte.gz", "cut short"});
  test::write_bytes(path, good.substr(0, good.size() - 4));  // only the checksum at the end is cut
  expect_error<DataError>([&] { read_mnist(folder.path(), partial); }, {"train-images-idx3-ubyte.gz", "cut short"});
  std::string flipped = good;
  flipped[good.size() - 6] ^= 0x10;  // within the CRC
  test::write_bytes(path, flipped);
  expect_error<DataError>([&] { read_mnist(folder.path(), partial); }, {"train-images-idx3-ubyte.gz", "damaged"});
}

TEST(Cifar10Reader, ReadsBatchesInOrder) {
  TemporaryFolder folder;
  write_cifar10(folder);
  const Dataset dataset = read_cifar10(folder.path(), partial);
  EXPECT_EQ(dataset.train.images.sizes(), (std::vector<std::int64_t>{15, 3, 32, 32}));
  EXPECT_EQ(dataset.test.images.sizes(), (std::vector<std::int64_t>{4, 3, 32, 32}));
  EXPECT_EQ(dataset.train.labels, (std::vector<std::int64_t>{0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4}));
  expect_pixels(dataset.train.images, 14, 4);
  expect_pixels(dataset.train.images, 3, 0);
  EXPECT_EQ(dataset.class_names.at(7), "7");
  std::filesystem::remove(folder / "data_batch_3.bin");
  EXPECT_EQ(read_cifar10(folder.path(), partial).train.size(), 12);
}

TEST(Cifar10Reader, RefusesBadFiles) {
  TemporaryFolder folder;
  write_cifar10(folder);
  const auto path = folder / "data_batch_2.bin";
  const std::string good = test::cifar_records(3, 1);
  expect_error<DataError>([&] { read_cifar10(folder.path(), {}); },
                          {"data_batch_1.bin", "1 records", "10000", "data.allow_partial=true"});
  test::write_bytes(path, good.substr(0, good.size() - 1));
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); },
                          {"data_batch_2.bin", "record 2", "3072 of 3073"});
  test::write_bytes(path, "");
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"data_batch_2.bin", "empty"});
  std::string wrong = good;
  wrong[3073] = 10;
  test::write_bytes(path, wrong);
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"data_batch_2.bin", "record 1", "label 10"});
  test::write_bytes(path, test::cifar_records(10001, 1));
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"data_batch_2.bin", "more data", "9999"});
  std::filesystem::remove(path);
  expect_error<DataError>([&] { read_cifar10(folder.path(), {}); }, {"data_batch_2.bin", "missing"});
  std::filesystem::remove(folder / "data_batch_1.bin");
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"data_batch_1.bin", "missing"});
}

TEST(Cifar10Reader, RefusesWhatDecompressesToNothingAndNamesThatAreNoText) {
  TemporaryFolder folder;
  write_cifar10(folder);
  test::write_gzip(folder / "test_batch.bin", "");
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"test_batch.bin", "no record"});
  write_cifar10(folder);
  test::write_gzip(folder / "data_batch_4.bin", std::string(std::size_t{40} << 20, '\0'));  // 40 kB on disk
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"data_batch_4.bin", "more data", "9999"});
  write_cifar10(folder);
  test::write_bytes(folder / "batches.meta.txt", std::string("a\nb\0\nc", 6));
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"batches.meta.txt", "byte 3", "control"});
  test::write_bytes(folder / "batches.meta.txt", "a\n\xff\n");
  expect_error<DataError>([&] { read_cifar10(folder.path(), partial); }, {"batches.meta.txt", "byte 2", "UTF-8"});
}

TEST(Readers, ReadImagesToWhereTheyAreTold) {
  TemporaryFolder folder;
  write_cifar10(folder);
  write_idx(folder);
  std::vector<at::Tensor> given;
  ReadOptions options = partial;
  options.allocate = [&](at::IntArrayRef sizes) { return given.emplace_back(at::empty(sizes, at::kByte)); };
  for (const auto& read : {read_cifar10, read_mnist}) {
    given.clear();
    const Dataset dataset = read(folder.path(), options);
    ASSERT_EQ(given.size(), 2u);
    EXPECT_EQ(dataset.train.images.const_data_ptr(), given[0].const_data_ptr());
    EXPECT_EQ(dataset.test.images.const_data_ptr(), given[1].const_data_ptr());
    EXPECT_TRUE(dataset.train.images.is_contiguous());
  }
}

TEST(Cifar100Reader, FineAndCoarseLabels) {
  TemporaryFolder folder;
  test::write_bytes(folder / "train.bin", test::cifar_records(130, 2));
  test::write_bytes(folder / "test.bin", test::cifar_records(30, 2));
  const Dataset fine = read_cifar100(folder.path(), partial);
  const Dataset coarse = read_cifar100(folder.path(), {.coarse_labels = true, .allow_partial = true});
  EXPECT_EQ(fine.class_count, 100);
  EXPECT_EQ(coarse.class_count, 20);
  EXPECT_EQ(fine.train.labels[129], 29);
  EXPECT_EQ(coarse.train.labels[129], 9);
  expect_pixels(fine.train.images, 129, 129);

  std::string wrong = test::cifar_records(30, 2);
  wrong[3074 * 4] = 20;  // the coarse byte counts even when the fine one is used
  test::write_bytes(folder / "test.bin", wrong);
  expect_error<DataError>([&] { read_cifar100(folder.path(), partial); },
                          {"test.bin", "record 4", "label 20", "below 20"});
  test::write_bytes(folder / "test.bin", test::cifar_records(30, 2));
  test::write_bytes(folder / "fine_label_names.txt", "apple\nbaby\n");
  expect_error<DataError>([&] { read_cifar100(folder.path(), partial); },
                          {"fine_label_names.txt", "2 class names", "100"});
}

TEST(DigitsReader, SplitsEveryFifthRow) {
  TemporaryFolder folder;
  test::write_gzip(folder / "digits.csv.gz", test::digits_rows(1797));
  const Dataset dataset = read_digits(folder.path(), {});
  EXPECT_EQ(dataset.train.size(), 1437);
  EXPECT_EQ(dataset.test.size(), 360);
  // Row 5 is the second test row, row 6 the fifth train row.
  EXPECT_EQ(dataset.test.labels[1], 5);
  EXPECT_EQ(dataset.train.labels[4], 6);
  const auto* test_bytes = dataset.test.images.const_data_ptr<std::uint8_t>() + 64;
  const auto* train_bytes = dataset.train.images.const_data_ptr<std::uint8_t>() + 4 * 64;
  for (int p = 0; p < 64; ++p) {
    EXPECT_EQ(test_bytes[p], (5 + p) % 17 * 15);
    EXPECT_EQ(train_bytes[p], (6 + p) % 17 * 15);
  }
}

TEST(DigitsReader, RefusesBadFiles) {
  const auto with = [](const std::string& text, std::initializer_list<const char*> parts) {
    TemporaryFolder folder;
    test::write_bytes(folder / "digits.csv", text);
    expect_error<DataError>([&] { read_digits(folder.path(), {}); }, parts);
  };
  const std::string rows = test::digits_rows(1797);
  const std::size_t third = rows.find('\n', rows.find('\n') + 1) + 1;
  with(test::digits_rows(1796), {"digits.csv", "1796 records", "1797", "data.allow_partial"});
  with(test::digits_rows(1798), {"digits.csv", "1798 records", "1797"});
  with(rows.substr(0, rows.size() - 3), {"digits.csv", "record 1796", "value 63"});  // the comma is gone as well
  with(std::string(rows).replace(third, 1, "17"), {"digits.csv", "record 2", "grey value 17", "0..16"});
  with(std::string(rows).replace(third, 1, "x"), {"digits.csv", "record 2", "value 0"});
  with(std::string(rows).insert(rows.size() - 1, "0"), {"digits.csv", "record 1796", "label 60", "0..9"});
  with(std::string(rows).insert(rows.size() - 1, ",3"), {"digits.csv", "record 1796", "value 64"});
  with("", {"digits.csv", "empty"});
}

TEST(ByteReader, LimitsWhatAFileMayGrowTo) {
  TemporaryFolder folder;
  test::write_gzip(folder / "zeros.gz", std::string(1 << 22, '\0'));  // a few kilobytes on disk
  EXPECT_EQ(read_all_bytes(folder / "zeros.gz", 1 << 22).size(), std::size_t{1} << 22);
  expect_error<DataError>([&] { read_all_bytes(folder / "zeros.gz", (1 << 22) - 1); }, {"zeros.gz", "longer"});
  expect_error<DataError>([&] { read_all_bytes(folder / "none", 10); }, {"none", "No such file"});
  expect_error<DataError>([&] { read_all_bytes(folder.path(), 10); }, {"folder"});
}

TEST(Statistics, EqualTwoPassesInDouble) {
  TemporaryFolder folder;
  write_cifar10(folder);
  const Dataset dataset = read_cifar10(folder.path(), partial);
  const auto* bytes = dataset.train.images.const_data_ptr<std::uint8_t>();
  for (std::int64_t c = 0; c < 3; ++c) {
    double sum = 0, squares = 0;
    const std::int64_t images = dataset.train.size();
    for (std::int64_t i = 0; i < images; ++i) {
      for (std::int64_t p = 0; p < 1024; ++p) sum += bytes[(i * 3 + c) * 1024 + p] / 255.0;
    }
    const double mean = sum / static_cast<double>(images * 1024);
    for (std::int64_t i = 0; i < images; ++i) {
      for (std::int64_t p = 0; p < 1024; ++p) {
        const double d = bytes[(i * 3 + c) * 1024 + p] / 255.0 - mean;
        squares += d * d;
      }
    }
    EXPECT_NEAR(dataset.mean[static_cast<std::size_t>(c)], mean, 1e-6);
    EXPECT_NEAR(dataset.deviation[static_cast<std::size_t>(c)], std::sqrt(squares / static_cast<double>(images * 1024)),
                1e-6);
  }
}

TEST(Statistics, ConstantChannelGetsDeviationOne) {
  Dataset dataset;
  dataset.train.images = at::full({2, 1, 3, 3}, 51, at::kByte);
  set_statistics(dataset);
  EXPECT_FLOAT_EQ(dataset.mean[0], 0.2f);
  EXPECT_EQ(dataset.deviation[0], 1.0f);
}

}  // namespace
}  // namespace sage
