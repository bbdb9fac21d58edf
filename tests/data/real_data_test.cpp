// Real data sets, found as the program finds them: SAGE_DATA_DIR, then the user's cache. The build registers a suite
// only where its folder is there (names RealCifar10, RealTinyImagenet, ...: tests/CMakeLists.txt).
#include <gtest/gtest.h>

#include <ATen/ops/equal.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/std.h>

#include <cstdlib>
#include <numeric>

#include "data/files.h"
#include "data/image_store.h"
#include "data/packed_file.h"
#include "data/registry.h"
#include "data/summary.h"

namespace sage {
namespace {

/// A folder of SAGE_DATA_DIR or the user's cache, whose name no data set knows.
std::string find_real_folder(const char* name) {
  if (const char* folder = std::getenv("SAGE_DATA_DIR"); folder != nullptr) {
    if (const auto path = std::filesystem::path(folder) / name; std::filesystem::is_directory(path))
      return path.string();
  }
  const test::ScopedVariable unset("SAGE_DATA_DIR", nullptr);
  return (default_data_folder() / name).string();
}

DatasetSummary read(const char* name, bool partial = false, const char* labels = "fine") {
  DataConfig config;
  config.name = name;
  config.allow_partial = partial;
  config.labels = labels;
  return dataset_summary(config);
}

TEST(RealCifar10, CountsStatisticsAndNames) {
  const DatasetSummary data = read("cifar10");
  EXPECT_EQ(data.train.per_class, std::vector<std::int64_t>(10, 5000));
  EXPECT_EQ(data.test.per_class, std::vector<std::int64_t>(10, 1000));
  EXPECT_EQ(data.class_names.front(), "airplane");
  EXPECT_EQ(data.class_names.back(), "truck");
  // The widely published figures.
  const float mean[] = {0.4914f, 0.4822f, 0.4465f}, deviation[] = {0.2470f, 0.2435f, 0.2616f};
  for (std::size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(data.mean[c], mean[c], 1e-4);
    EXPECT_NEAR(data.deviation[c], deviation[c], 1e-4);
  }
  DataConfig config;
  config.name = "cifar10";
  const Dataset dataset = load_dataset(config);
  EXPECT_EQ(std::vector<std::int64_t>(dataset.train.labels.begin(), dataset.train.labels.begin() + 10),
            (std::vector<std::int64_t>{6, 9, 9, 4, 1, 1, 2, 7, 8, 3}));
  EXPECT_EQ(std::vector<std::int64_t>(dataset.test.labels.begin(), dataset.test.labels.begin() + 5),
            (std::vector<std::int64_t>{3, 8, 8, 0, 6}));
  const auto* bytes = dataset.train.images.const_data_ptr<std::uint8_t>();
  EXPECT_EQ(bytes[0], 59);  // the frog's upper left corner: 59, 62, 63
  EXPECT_EQ(bytes[1024], 62);
  EXPECT_EQ(bytes[2048], 63);
}

TEST(RealCifar100, FineAndCoarse) {
  const DatasetSummary fine = read("cifar100", true), coarse = read("cifar100", true, "coarse");
  EXPECT_EQ(fine.train.per_class.size(), 100u);
  EXPECT_EQ(coarse.train.per_class.size(), 20u);
  EXPECT_EQ(fine.class_names.front(), "apple");
  EXPECT_EQ(coarse.class_names.front(), "aquatic_mammals");
  EXPECT_GE(fine.train.count, 8000);
  EXPECT_EQ(fine.train.count, coarse.train.count);
  // Every superclass is made of five classes: the pairs that occur are at most 100, and each fine class has one.
  DataConfig config;
  config.name = "cifar100";
  config.allow_partial = true;
  const Dataset by_fine = load_dataset(config);
  config.labels = "coarse";
  const Dataset by_coarse = load_dataset(config);
  std::vector<std::int64_t> superclass(100, -1);
  for (std::size_t i = 0; i < by_fine.train.labels.size(); ++i) {
    std::int64_t& known = superclass[static_cast<std::size_t>(by_fine.train.labels[i])];
    if (known < 0) known = by_coarse.train.labels[i];
    ASSERT_EQ(known, by_coarse.train.labels[i]) << "record " << i;
  }
  std::vector<int> members(20);
  for (const std::int64_t s : superclass) ++members.at(static_cast<std::size_t>(s));
  EXPECT_EQ(members, std::vector<int>(20, 5));
}

TEST(RealFashionMnist, CountsStatisticsAndLabels) {
  const DatasetSummary data = read("fashion_mnist");
  EXPECT_EQ(data.train.per_class, std::vector<std::int64_t>(10, 6000));
  EXPECT_EQ(data.test.per_class, std::vector<std::int64_t>(10, 1000));
  EXPECT_NEAR(data.mean[0], 0.2860f, 1e-4);
  EXPECT_NEAR(data.deviation[0], 0.3530f, 1e-4);
  DataConfig config;
  config.name = "fashion_mnist";
  const Dataset dataset = load_dataset(config);
  EXPECT_EQ(std::vector<std::int64_t>(dataset.train.labels.begin(), dataset.train.labels.begin() + 5),
            (std::vector<std::int64_t>{9, 0, 0, 3, 0}));
}

TEST(RealDigits, CountsAndFirstRows) {
  const DatasetSummary data = read("digits");
  EXPECT_EQ(data.train.count, 1437);
  EXPECT_EQ(data.test.count, 360);
  // scikit-learn's own count of the classes 0..9.
  const std::int64_t counts[] = {178, 182, 177, 183, 181, 182, 181, 179, 174, 180};
  for (std::size_t c = 0; c < 10; ++c) EXPECT_EQ(data.train.per_class[c] + data.test.per_class[c], counts[c]);
  DataConfig config;
  config.name = "digits";
  const Dataset dataset = load_dataset(config);
  EXPECT_EQ(dataset.test.labels[0], 0);  // rows 0, 1, 2, 3, 4 are the digits 0..4
  EXPECT_EQ(std::vector<std::int64_t>(dataset.train.labels.begin(), dataset.train.labels.begin() + 4),
            (std::vector<std::int64_t>{1, 2, 3, 4}));
  const auto* first = dataset.test.images.const_data_ptr<std::uint8_t>();
  EXPECT_EQ(std::vector<int>(first, first + 8), (std::vector<int>{0, 0, 75, 195, 135, 15, 0, 0}));
}

TEST(RealTinyImagenet, CountsNamesAndSize) {
  const DatasetSummary data = read("tiny_imagenet");
  EXPECT_EQ(data.train.per_class, std::vector<std::int64_t>(20, 100));
  EXPECT_EQ(data.test.per_class, std::vector<std::int64_t>(20, 10));
  EXPECT_EQ(data.channels, 3);
  EXPECT_EQ(data.height, 64);
  EXPECT_EQ(data.class_names.front().substr(0, 9), "n01443537") << "the first wnid";
  // Natural images: brightest in red, as all of ImageNet (0.48, 0.45, 0.40).
  EXPECT_NEAR(data.mean[0], 0.48, 0.03);
  EXPECT_NEAR(data.mean[1], 0.45, 0.03);
  EXPECT_NEAR(data.mean[2], 0.40, 0.04);
}

/// Some of the images are grey: their channels are equal, and they are there.
TEST(RealTinyImagenet, GreyImagesAreRead) {
  DataConfig config;
  config.name = "tiny_imagenet";
  const Dataset dataset = load_dataset(config);
  int grey = 0;
  for (std::int64_t id = 0; id < dataset.train.size(); ++id) {
    const auto* red = dataset.train.images[id].const_data_ptr<std::uint8_t>();
    grey += std::equal(red, red + 64 * 64, red + 64 * 64) && std::equal(red, red + 64 * 64, red + 2 * 64 * 64);
  }
  EXPECT_GT(grey, 0);
  EXPECT_LT(grey, dataset.train.size() / 10);
}

TEST(RealTinyImagenet, APackedFileHoldsTheSame) {
  DataConfig config;
  config.name = "tiny_imagenet";
  const Dataset folder = load_dataset(config);
  const test::TemporaryFolder out;
  for (const bool decoded : {true, false}) {
    DataConfig packed = config;
    packed.packed = (out / "tiny.sage").string();
    EXPECT_EQ(pack_dataset(config, {.decoded = decoded}, packed.packed).left_out, 0);
    const Dataset dataset = load_dataset(packed);
    EXPECT_EQ(dataset.train.labels, folder.train.labels);
    EXPECT_EQ(dataset.mean, folder.mean);
    const std::vector<std::int64_t> ids = {0, 777, 1999};
    const ImageStore a(folder, folder.train, at::kCPU, false), b(dataset, dataset.train, at::kCPU, false);
    EXPECT_TRUE(at::equal(a.images_of(ids), b.images_of(ids)));
  }
}

TEST(RealHymenoptera, PhotosOfAnySize) {
  DataConfig config;
  config.name = "image_folder";
  config.path = find_real_folder("hymenoptera-30");
  const DatasetSummary data = verify_dataset(config);
  EXPECT_EQ(data.class_names, (std::vector<std::string>{"ants", "bees"}));
  EXPECT_EQ(data.train.per_class, (std::vector<std::int64_t>{10, 10}));
  EXPECT_EQ(data.unreadable, 0);
  EXPECT_EQ(data.height, 224);
  const Dataset dataset = load_dataset(config);
  ASSERT_NE(dataset.train.source, nullptr);
  const ImageStore store(dataset, dataset.train, at::kCPU, true);
  const std::vector<std::int64_t> ids = {0, 13, 19};
  AugmentOptions options;
  options.flip = options.random_resized_crop = true;
  options.randaugment = 2;
  options.erasing = 0.25;
  const at::Tensor images = store.augmented(ids, {options, 1, 1});
  EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{3, 3, 224, 224}));
  EXPECT_TRUE(at::equal(images, store.augmented(ids, {options, 1, 1}, /*parallel=*/false)));
  // Natural photos under ImageNet's statistics: roughly centred, of unit size.
  const at::Tensor plain = store.images_of(ids);
  EXPECT_LT(std::abs(plain.mean().item<double>()), 1.5);
  EXPECT_NEAR(plain.std().item<double>(), 1.0, 0.5);
}

}  // namespace
}  // namespace sage
