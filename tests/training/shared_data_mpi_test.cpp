// data.share_on_node: the images once in the memory of a node, and nothing else different.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "support/mpi.h"
#include "training/experiment.h"
#include "training/resources.h"

namespace sage {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool memory_is_ours = false;  // a sanitizer keeps notes beside every byte
#else
constexpr bool memory_is_ours = true;
#endif

constexpr std::int64_t train_count = 8000, test_count = 500, image_bytes = 3072;
constexpr std::int64_t all_bytes = (train_count + test_count) * image_bytes;

/// A CIFAR-10 folder of 26 MB that rank 0 makes.
class SharedData : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("sage_shared_data_" + std::to_string(getppid()));
    if (world().rank() == 0) {
      std::filesystem::create_directories(folder_);
      write("data_batch_1.bin", train_count);
      write("test_batch.bin", test_count);
    }
    world().barrier();
  }
  void TearDown() override {
    world().barrier();
    if (world().rank() == 0) std::filesystem::remove_all(folder_);
  }
  void write(const char* name, std::int64_t count) const {
    std::ofstream file(folder_ / name, std::ios::binary);
    std::string record(1 + image_bytes, '\0');
    for (std::int64_t i = 0; i < count; ++i) {
      record[0] = static_cast<char>(i % 10);
      for (std::int64_t p = 0; p < image_bytes; ++p)
        record[1 + static_cast<std::size_t>(p)] = static_cast<char>(i * 7 + p * 3 % 101);
      file << record;
    }
  }
  Config config(bool share) const {
    Config config;
    config.data.name = "cifar10";
    config.data.path = folder_.string();
    config.data.allow_partial = true;
    config.data.share_on_node = share;
    config.data.validation_fraction = 0.1;
    config.data.corrupt_labels = 0.1;
    return config;
  }
  std::filesystem::path folder_;
};

/// What this rank holds for itself, and its part of what it shares with others. Pages of files are left out: the part
/// of the libraries that is ours changes with every process that starts or ends.
std::int64_t proportional_memory() {
  malloc_trim(0);  // what was freed but is still held would be taken again by the next experiment
  std::ifstream rollup("/proc/self/smaps_rollup");
  std::int64_t kibibytes = 0;
  for (std::string line; std::getline(rollup, line);) {
    if (line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:")) {
      kibibytes += std::stoll(line.substr(line.find(':') + 1));
    }
  }
  return kibibytes << 10;
}

std::int64_t sum_over_ranks(std::int64_t value) {
  at::Tensor sum = at::full({1}, value, at::kLong);
  world().all_reduce_sum(sum);
  return sum.item<std::int64_t>();
}

TEST_F(SharedData, IsTheSameAndCountedOnce) {
  const auto one_after_the_other = [&](bool share, std::unique_ptr<Experiment>& experiment) {
    world().barrier();
    const std::int64_t before = proportional_memory();
    reset_peak_host_memory();
    const std::int64_t peak_before = peak_host_memory();
    experiment = prepare_experiment(config(share), at::kCPU, world());
    const std::int64_t peak = peak_host_memory() - peak_before;
    // Every rank has looked at every image.
    experiment->dataset.train.images.sum();
    experiment->dataset.test.images.sum();
    world().barrier();
    const std::int64_t grown = sum_over_ranks(proportional_memory() - before);
    if (memory_is_ours) {
      EXPECT_LT(peak, all_bytes * 3 / 2) << "read into place: there is no second copy meanwhile";
    }
    world().barrier();
    return static_cast<double>(grown) / static_cast<double>(all_bytes);
  };
  std::unique_ptr<Experiment> shared, own;
  const double once = one_after_the_other(true, shared), copies = one_after_the_other(false, own);
  if (memory_is_ours) {
    EXPECT_NEAR(once, 1.0, 0.35) << "times the images of the data set, over all ranks";
    EXPECT_NEAR(copies, world().size(), 0.35 * world().size());
  }

  EXPECT_TRUE(at::equal(shared->dataset.train.images, own->dataset.train.images));
  EXPECT_TRUE(at::equal(shared->dataset.test.images, own->dataset.test.images));
  EXPECT_EQ(shared->dataset.train.size(), train_count);
  EXPECT_EQ(shared->dataset.train.labels, own->dataset.train.labels);
  EXPECT_EQ(shared->dataset.test.labels, own->dataset.test.labels);
  EXPECT_EQ(shared->dataset.name, own->dataset.name);
  EXPECT_EQ(shared->dataset.class_names, own->dataset.class_names);
  EXPECT_EQ(shared->dataset.class_count, own->dataset.class_count);
  EXPECT_EQ(shared->dataset.mean, own->dataset.mean);
  EXPECT_EQ(shared->dataset.deviation, own->dataset.deviation);
  EXPECT_EQ(shared->labels, own->labels);
  EXPECT_EQ(shared->corrupted, own->corrupted);
  EXPECT_EQ(shared->candidates, own->candidates);
  EXPECT_EQ(shared->validation, own->validation);
  const std::vector<std::int64_t> ids{0, 17, train_count - 1};
  EXPECT_TRUE(at::equal(shared->train_images->images_of(ids), own->train_images->images_of(ids)));
}

TEST_F(SharedData, ABadFileIsOneError) {
  if (world().rank() == 0) std::ofstream(folder_ / "data_batch_1.bin", std::ios::app) << "x";
  world().barrier();
  for (const bool share : {true, false}) {
    int error = 0;
    try {
      prepare_experiment(config(share), at::kCPU, world());
    } catch (const DataError& failure) {
      error = 1;
      EXPECT_NE(std::string(failure.what()).find("record 8000 is cut short"), std::string::npos) << failure.what();
    } catch (const PeerFailed& failure) {
      EXPECT_EQ(failure.status(), static_cast<int>(ExitStatus::data));
    }
    EXPECT_EQ(sum_over_ranks(error), 1) << "one message";
  }
}

}  // namespace
}  // namespace sage
