#include "data/image_folder.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "core/error.h"
#include "data/files.h"
#include "data/image_store.h"
#include "data/images.h"
#include "data/registry.h"
#include "data/summary.h"

namespace sage {
namespace {

using test::expect_error;
using test::photo;
using test::TemporaryFolder;
using test::write_bytes;

/// Two classes with three and two photos to train on, one each to test on.
void make_photos(const std::filesystem::path& folder) {
  int seed = 0;
  for (const char* name : {"train/cats/b.jpg", "train/cats/a.JPEG", "train/cats/c.Jpg", "train/dogs/1.jpg",
                           "train/dogs/2.jpg", "val/cats/x.jpg", "val/dogs/y.jpg"}) {
    write_bytes(folder / name, photo(40 + seed, 60 - 3 * seed, seed));
    ++seed;
  }
  write_bytes(folder / "train/dogs/3.png", test::encode_png(test::smooth_pixels(33, 35, 1, 9), 33, 35, 1));
  write_bytes(folder / "train/cats/notes.txt", "not an image");
  write_bytes(folder / "train/cats/.hidden.jpg", "nor this");
}

DataConfig config_of(const char* name, const std::filesystem::path& path, std::int64_t image_size = 0) {
  DataConfig config;
  config.name = name;
  config.path = path.string();
  config.image_size = image_size;
  return config;
}

at::Tensor all_bytes(const Dataset& dataset, const Split& split) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(split.size()));
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  return ImageStore(dataset, split, at::kCPU, false).bytes_of(ids);
}

TEST(ImageFolder, IdsCountFilesInTheOrderOfClassAndName) {
  const TemporaryFolder folder;
  make_photos(folder.path());
  const Dataset dataset = load_dataset(config_of("image_folder", folder.path()));
  EXPECT_EQ(dataset.class_names, (std::vector<std::string>{"cats", "dogs"}));
  EXPECT_EQ(dataset.train.labels, (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(dataset.test.labels, (std::vector<std::int64_t>{0, 1}));
  ASSERT_NE(dataset.train.source, nullptr) << "photos are read as they are used";
  std::vector<std::string> names;
  for (std::int64_t id = 0; id < 6; ++id) {
    names.push_back(std::filesystem::path(dataset.train.source->name(id)).filename().string());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a.JPEG", "b.jpg", "c.Jpg", "1.jpg", "2.jpg", "3.png"}));
  EXPECT_EQ(dataset.channels(), 3);
  EXPECT_EQ(dataset.height(), 224);
  EXPECT_EQ(dataset.width(), 224);
}

TEST(ImageFolder, InMemoryAndFromFilesAreTheSameBytes) {
  const TemporaryFolder folder;
  make_photos(folder.path());
  const DataConfig config = config_of("image_folder", folder.path(), 24);
  const Dataset held = load_dataset(config), streamed = load_dataset(config, {}, /*from_files=*/true);
  ASSERT_EQ(held.train.source, nullptr);
  ASSERT_NE(streamed.train.source, nullptr);
  EXPECT_TRUE(at::equal(held.train.images, all_bytes(streamed, streamed.train)));
  EXPECT_TRUE(at::equal(held.test.images, all_bytes(streamed, streamed.test)));
  DataConfig cropped = config;
  cropped.augment.random_resized_crop = true;
  EXPECT_NE(load_dataset(cropped).train.source, nullptr) << "a part is cut out of the photo, not of its small copy";
}

/// Augmented batches from files, by workers and ranks, as from one thread.
TEST(ImageFolder, ImagesOfTheStoreAreThoseOfTheirIds) {
  const TemporaryFolder folder;
  make_photos(folder.path());
  const Dataset dataset = load_dataset(config_of("image_folder", folder.path(), 24), {}, /*from_files=*/true);
  const ImageStore store(dataset, dataset.train, at::kCPU, true);
  const std::vector<std::int64_t> ids = {5, 0, 3};
  AugmentOptions options;
  options.flip = true;
  options.random_resized_crop = true;
  options.erasing = 0.5;
  const Augmentation augmentation{options, 7, 2};
  const at::Tensor together = store.augmented(ids, augmentation), apart = store.augmented(ids, augmentation, false);
  EXPECT_TRUE(at::equal(together, apart));
  EXPECT_TRUE(together.is_contiguous(at::MemoryFormat::ChannelsLast));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    const std::vector<std::int64_t> one = {ids[i]};
    EXPECT_TRUE(at::equal(store.augmented(one, augmentation)[0], together[at]));
    EXPECT_TRUE(at::equal(store.images_of(one)[0], store.images_of(ids)[at]));
    EXPECT_FALSE(at::equal(store.augmented(one, {options, 7, 3})[0], together[at])) << "another epoch";
  }
}

TEST(ImageFolder, BadFoldersAreNamed) {
  const auto fails = [](const char* spoiled_folder, const char* with, std::initializer_list<const char*> words) {
    const TemporaryFolder folder;
    make_photos(folder.path());
    if (with == nullptr) {
      std::filesystem::remove_all(folder / spoiled_folder);
    } else {
      write_bytes(folder / spoiled_folder, with);
    }
    expect_error<DataError>([&] { load_dataset(config_of("image_folder", folder.path())); }, words);
  };
  fails("train/birds/readme.txt", "", {"train/birds", "class `birds` has no image"});
  fails("val/birds/x.jpg", "", {"val/birds", "class `birds` is not in"});
  fails("val/fish/readme.txt", "", {"val/fish", "is not in"});
  fails("val", nullptr, {"neither val nor test"});
  fails("train", nullptr, {"not found", "train/<class>"});
  const TemporaryFolder empty;
  std::filesystem::create_directories(empty / "train");
  std::filesystem::create_directories(empty / "val");
  expect_error<DataError>([&] { load_dataset(config_of("image_folder", empty.path())); }, {"train", "no class"});
  const TemporaryFolder nothing_to_test;
  make_photos(nothing_to_test.path());
  std::filesystem::remove_all(nothing_to_test / "val");
  std::filesystem::create_directories(nothing_to_test / "test");
  EXPECT_EQ(load_dataset(config_of("image_folder", nothing_to_test.path(), 16)).test.size(), 0);
  expect_error<ConfigError>([&] { load_dataset(config_of("digits", nothing_to_test.path(), 16)); },
                            {"data.image_size", "digits"});
}

TEST(ImageFolder, AnImageThatDoesNotDecodeIsNamedOrLeftOut) {
  const TemporaryFolder folder;
  make_photos(folder.path());
  write_bytes(folder / "train/cats/b.jpg", photo(40, 40, 1).substr(0, 300));
  write_bytes(folder / "val/dogs/y.jpg", "no image");
  DataConfig config = config_of("image_folder", folder.path(), 16);
  expect_error<DataError>([&] { load_dataset(config); },
                          {"train/cats/b.jpg", "does not decode", "corrupt_images=skip"});
  const Dataset streamed = load_dataset(config, {}, /*from_files=*/true);
  const ImageStore store(streamed, streamed.train, at::kCPU, false);
  const std::vector<std::int64_t> ids = {0, 1};
  expect_error<DataError>([&] { store.images_of(ids); }, {"train/cats/b.jpg", "corrupt_images=skip"});

  config.corrupt_images = "skip";
  const Dataset dataset = load_dataset(config);
  EXPECT_EQ(dataset.train.unreadable, std::vector<std::int64_t>{1});
  EXPECT_EQ(dataset.test.unreadable, std::vector<std::int64_t>{1});
  EXPECT_EQ(dataset.train.readable_ids(), (std::vector<std::int64_t>{0, 2, 3, 4, 5}));
  // Its place is black, and does not count in the statistics.
  std::filesystem::remove(folder / "train/cats/b.jpg");
  const Dataset without = load_dataset(config);
  EXPECT_EQ(without.train.size(), 5);
  EXPECT_EQ(without.mean, dataset.mean);
  EXPECT_EQ(without.deviation, dataset.deviation);
  DataConfig fatal = config;
  fatal.corrupt_images = "fatal";
  EXPECT_EQ(verify_dataset(fatal).unreadable, 1) << "all are named and counted";
}

/// Three classes of the official layout.
void make_tiny(const std::filesystem::path& folder) {
  write_bytes(folder / "wnids.txt", "n03\nn01\nn02\n");
  write_bytes(folder / "words.txt", "n00\tnothing\nn01\tgoldfish, Carassius auratus\nn03\tbarn\n");
  int seed = 0;
  for (const char* wnid : {"n01", "n02", "n03"}) {
    for (const char* number : {"0", "1", "10"}) {
      write_bytes(folder / "train" / wnid / "images" / fmt::format("{}_{}.JPEG", wnid, number), photo(64, 64, seed++));
    }
  }
  for (int i = 0; i < 4; ++i) write_bytes(folder / fmt::format("val/images/val_{}.JPEG", i), photo(64, 64, seed++));
  write_bytes(folder / "val/val_annotations.txt",
              "val_0.JPEG\tn01\t0\t0\t63\t63\nval_1.JPEG\tn03\t0\t0\t63\t63\nval_3.JPEG\tn02\t1\t1\t5\t5\n"
              "val_2.JPEG\tn03\t0\t0\t63\t63\n");
}

TEST(TinyImagenet, ClassesAreInTheOrderOfWnidsAndStayInMemory) {
  const TemporaryFolder folder;
  make_tiny(folder.path());
  for (const char* name : {"tiny_imagenet", "tinyimagenet"}) {
    const Dataset dataset = load_dataset(config_of(name, folder.path()));
    EXPECT_EQ(dataset.name, "tiny_imagenet");
    EXPECT_EQ(dataset.class_names, (std::vector<std::string>{"barn (n03)", "goldfish (n01)", "n02"}));
    EXPECT_EQ(dataset.train.labels, (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1, 2, 2, 2}));
    EXPECT_EQ(dataset.test.labels, (std::vector<std::int64_t>{0, 0, 1, 2}));
    EXPECT_EQ(dataset.train.images.sizes(), (std::vector<std::int64_t>{9, 3, 64, 64}));
    // Class 0 is n03, whose files were written last; val_1 and val_2 are its images to test on.
    const auto held = [&](const at::Tensor& images, std::int64_t id, int seed) {
      const std::string bytes = photo(64, 64, seed);
      const DecodedImage image =
          decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, "photo");
      std::vector<std::uint8_t> planes(3 * 64 * 64);
      to_planes(image.pixels.data(), 64 * 64, 3, planes.data());
      return std::equal(planes.begin(), planes.end(), images[id].const_data_ptr<std::uint8_t>());
    };
    EXPECT_TRUE(held(dataset.train.images, 0, 6));
    EXPECT_TRUE(held(dataset.train.images, 3, 0));
    EXPECT_TRUE(held(dataset.train.images, 2, 8)) << "n03_10 comes behind n03_1";
    EXPECT_TRUE(held(dataset.test.images, 0, 10));
    EXPECT_TRUE(held(dataset.test.images, 1, 11));
  }
  EXPECT_EQ(load_dataset(config_of("tiny_imagenet", folder.path(), 32)).height(), 32);
}

TEST(TinyImagenet, WrongLinesAndMissingFilesAreNamed) {
  const auto fails = [](const char* file, const std::string& content, std::initializer_list<const char*> words) {
    const TemporaryFolder folder;
    make_tiny(folder.path());
    write_bytes(folder / file, content);
    expect_error<DataError>([&] { load_dataset(config_of("tiny_imagenet", folder.path())); }, words);
  };
  const std::string good = "val_0.JPEG\tn01\nval_1.JPEG\tn03\nval_3.JPEG\tn02\n";
  fails("val/val_annotations.txt", good, {"val_annotations.txt", "val_2.JPEG has no line"});
  fails("val/val_annotations.txt", good + "val_2.JPEG\tn09\n", {"line 4", "`n09` is no class"});
  fails("val/val_annotations.txt", good + "val_7.JPEG\tn01\n", {"line 4", "no image `val_7.JPEG`"});
  fails("val/val_annotations.txt", good + "val_1.JPEG\tn01\n", {"line 4", "val_1.JPEG", "a class already"});
  fails("val/val_annotations.txt", good + std::string("val_2\0", 6), {"control character"});
  fails("wnids.txt", "n03\nn01\n", {"train/n02", "not in wnids.txt"});
  fails("wnids.txt", "n03\nn01\nn02\nn04\n", {"train/n04/images", "missing"});
  fails("wnids.txt", "n03\nn01\nn02\nn01\n", {"line 4", "second time"});
  fails("wnids.txt", "n03\n../n01\nn02\n", {"line 2"});
}

TEST(Imagenet, ValidationIsInFoldersOrFlatWithLabels) {
  const auto make = [](const std::filesystem::path& folder) {
    int seed = 0;
    for (const char* name : {"train/n02/a.JPEG", "train/n01/a.JPEG", "train/n01/b.JPEG"}) {
      write_bytes(folder / name, photo(30, 40, seed++));
    }
    for (const char* name : {"v_1", "v_2", "v_3"}) {
      write_bytes(folder / "val" / (std::string(name) + ".JPEG"), photo(30, 40, seed++));
    }
  };
  struct Case {
    const char* file;
    const char* content;
  };
  for (const Case& c : {Case{"val_labels.txt", "v_1.JPEG n02\nv_3.JPEG n02\nv_2.JPEG n01\n"},
                        Case{"val/val.txt", "v_1.JPEG 1\nv_2.JPEG 0\nv_3.JPEG 1\n"},
                        Case{"LOC_val_solution.csv",
                             "ImageId,PredictionString\nv_2,n01 1 2 3 4\nv_1,n02 5 6 7 8 n02 1 2 "
                             "3 4\nv_3,n02 0 0 1 1\n"},
                        Case{"imagenet_2012_validation_synset_labels.txt", "n02\nn01\nn02\n"}}) {
    const TemporaryFolder folder;
    make(folder.path());
    write_bytes(folder / c.file, c.content);
    write_bytes(folder / "LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn02 goldfish\n");
    const Dataset dataset = load_dataset(config_of("imagenet", folder.path()));
    EXPECT_EQ(dataset.train.labels, (std::vector<std::int64_t>{0, 0, 1}));
    EXPECT_EQ(dataset.test.labels, (std::vector<std::int64_t>{0, 1, 1})) << c.file;
    EXPECT_TRUE(dataset.test.source->name(0).ends_with("v_2.JPEG")) << c.file;
    EXPECT_TRUE(dataset.test.source->name(1).ends_with("v_1.JPEG")) << c.file;
    EXPECT_EQ(dataset.class_names.front(), "tench (n01)");
  }
  const TemporaryFolder folder;
  make(folder.path());
  expect_error<DataError>([&] { load_dataset(config_of("imagenet", folder.path())); },
                          {"val", "no file of labels", "LOC_val_solution.csv"});
  std::filesystem::remove_all(folder / "val");
  write_bytes(folder / "val/n02/x.JPEG", photo(30, 40, 1));
  EXPECT_EQ(load_dataset(config_of("imagenet", folder.path())).test.labels, std::vector<std::int64_t>{1});
}

TEST(Caltech256, AFifthOfEachClassIsTestedOn) {
  const TemporaryFolder folder;
  for (const char* name : {"001.ak47", "002.american-flag"}) {
    for (int i = 1; i <= 10; ++i) write_bytes(folder / name / fmt::format("{:04}.jpg", i), photo(20, 30, i));
  }
  write_bytes(folder / "001.ak47" / "RENAME2", "");
  const Dataset dataset = load_dataset(config_of("caltech256", folder.path()));
  EXPECT_EQ(dataset.class_names, (std::vector<std::string>{"ak47", "american-flag"}));
  EXPECT_EQ(std::ranges::count(dataset.train.labels, 0), 8);
  EXPECT_EQ(std::ranges::count(dataset.test.labels, 1), 2);
  std::set<std::string> all;
  for (const Split* split : {&dataset.train, &dataset.test}) {
    for (std::int64_t id = 0; id < split->size(); ++id) all.insert(split->source->name(id));
  }
  EXPECT_EQ(all.size(), 20u);
  const Dataset again = load_dataset(config_of("caltech256", folder.path()));
  for (std::int64_t id = 0; id < 4; ++id) EXPECT_EQ(again.test.source->name(id), dataset.test.source->name(id));
  write_bytes(folder / "003.backpack" / "1.jpg", photo(20, 30, 1));
  expect_error<DataError>([&] { load_dataset(config_of("caltech256", folder.path())); }, {"003.backpack", "one image"});
}

}  // namespace
}  // namespace sage
