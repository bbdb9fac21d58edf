#include "data/registry.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "data/summary.h"
#include "files.h"

namespace sage {
namespace {

using test::expect_error;
using test::ScopedVariable;
using test::TemporaryFolder;

DataConfig digits_at(const std::filesystem::path& path) {
  DataConfig config;
  config.name = "digits";
  config.path = path.string();
  return config;
}

TEST(Registry, WrongNameListsTheRightOnes) {
  expect_error<ConfigError>([] { dataset_format("cifar_10"); },
                            {"cifar_10", "did you mean `cifar10`", "digits, mnist, fashion_mnist, cifar10, cifar100"});
}

TEST(Registry, PathIsTheFolderOrTheOneAbove) {
  TemporaryFolder folder;
  test::write_gzip(folder / "digits/digits.csv.gz", test::digits_rows(1797));
  EXPECT_EQ(find_dataset("digits", folder.path()), folder / "digits");
  EXPECT_EQ(find_dataset("digits", folder / "digits"), folder / "digits");
  EXPECT_EQ(load_dataset(digits_at(folder.path())).train.size(), 1437);
}

TEST(Registry, EmptyPathTakesTheEnvironmentThenTheCache) {
  TemporaryFolder first, second;
  test::write_bytes(second / "sage/data/digits/digits.csv", test::digits_rows(10));
  const ScopedVariable cache("XDG_CACHE_HOME", second.path().c_str());
  {
    const ScopedVariable variable("SAGE_DATA_DIR", first.path().c_str());
    EXPECT_EQ(find_dataset("digits", ""), second / "sage/data/digits");
    EXPECT_EQ(default_data_folder(), first.path());
    test::write_bytes(first / "digits/digits.csv", test::digits_rows(10));
    EXPECT_EQ(find_dataset("digits", ""), first / "digits");
  }
  const ScopedVariable variable("SAGE_DATA_DIR", nullptr);
  EXPECT_EQ(default_data_folder(), second / "sage/data");
}

TEST(Registry, NotFoundSaysWhereFilesAndCommand) {
  TemporaryFolder folder;
  expect_error<DataError>(
      [&] { find_dataset("cifar10", folder.path()); },
      {folder.path().c_str(), "cifar-10-batches-bin", "data_batch_1.bin", "test_batch.bin", "sage data fetch cifar10"});
  const ScopedVariable variable("SAGE_DATA_DIR", (folder / "a").c_str());
  const ScopedVariable cache("XDG_CACHE_HOME", (folder / "b").c_str());
  expect_error<DataError>([&] { find_dataset("mnist", ""); },
                          {(folder / "a").c_str(), (folder / "b/sage/data").c_str(), "sage data fetch mnist"});
}

TEST(Registry, MnistIsNotTakenFromAFolderCalledFashionMnist) {
  TemporaryFolder folder;
  test::write_bytes(folder / "fashion-mnist/train-images-idx3-ubyte", "x");
  EXPECT_EQ(find_dataset("fashion_mnist", folder / "fashion-mnist"), folder / "fashion-mnist");
  EXPECT_THROW(find_dataset("mnist", folder / "fashion-mnist"), DataError);
  EXPECT_THROW(find_dataset("mnist", folder / "fashion-mnist/"), DataError);
}

TEST(Registry, LabelsOption) {
  TemporaryFolder folder;
  DataConfig config = digits_at(folder.path());
  config.labels = "coarse";
  expect_error<ConfigError>([&] { load_dataset(config); }, {"data.labels", "cifar100", "digits"});
  config.labels = "finest";
  expect_error<ConfigError>([&] { load_dataset(config); }, {"data.labels", "finest"});
}

TEST(Summary, CountsAndChecksums) {
  TemporaryFolder folder;
  test::write_gzip(folder / "mnist/train-images-idx3-ubyte.gz", test::idx_images(20));
  test::write_bytes(folder / "mnist/train-labels-idx1-ubyte", test::idx_labels(20));
  test::write_bytes(folder / "mnist/t10k-images-idx3-ubyte", test::idx_images(5));
  test::write_bytes(folder / "mnist/t10k-labels-idx1-ubyte", test::idx_labels(5));
  DataConfig config;
  config.name = "mnist";
  config.path = folder.path().string();
  config.allow_partial = true;
  const DatasetSummary info = dataset_summary(config);
  EXPECT_EQ(info.folder, folder / "mnist");
  EXPECT_EQ(info.train.per_class, std::vector<std::int64_t>(10, 2));
  EXPECT_EQ(info.test.per_class, (std::vector<std::int64_t>{1, 1, 1, 1, 1, 0, 0, 0, 0, 0}));
  ASSERT_EQ(info.files.size(), 4u);
  EXPECT_EQ(info.files[1].bytes, 28u);
  EXPECT_EQ(info.files[0].checksum, FileSummary::Checksum::not_compared);
  const DatasetSummary checked = verify_dataset(config);
  EXPECT_EQ(checked.files[0].checksum, FileSummary::Checksum::differs);
  EXPECT_EQ(checked.files[1].checksum, FileSummary::Checksum::unknown);
  EXPECT_FALSE(checked.checksums_match());
  const std::string text = format_summary(checked);
  EXPECT_NE(text.find("20 train and 5 test images of 1 x 28 x 28, 10 classes"), std::string::npos) << text;
  EXPECT_NE(text.find("train-images-idx3-ubyte.gz: "), std::string::npos) << text;
  EXPECT_NE(text.find("CHECKSUM DIFFERS"), std::string::npos) << text;
}

}  // namespace
}  // namespace sage
