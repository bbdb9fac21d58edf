// Images that are read as they are used, on several ranks: the same training as from memory, and the same examples left
// out everywhere.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "data/images.h"
#include "data/packed_file.h"
#include "models/weights.h"
#include "support/mpi.h"
#include "training/learner.h"

namespace sage {
namespace {

class ImageFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("sage_image_files_" + std::to_string(getppid()));
    if (world().rank() == 0) {
      for (int i = 0; i < 22; ++i) {
        write(fmt::format("train/{}/{:02}.jpg", i % 2 ? "odd" : "even", i), test::photo(20 + i, 34 - i, i));
      }
      for (int i = 0; i < 4; ++i) write(fmt::format("val/odd/{}.jpg", i), test::photo(20, 20, i));
    }
    world().barrier();
    config_.data.name = "image_folder";
    config_.data.path = folder_.string();
    config_.data.image_size = 12;
    config_.training.batch_size = 9;  // the last batch holds 4
  }
  void TearDown() override {
    world().barrier();
    if (world().rank() == 0) std::filesystem::remove_all(folder_);
  }
  void write(const std::string& name, const std::string& bytes) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }

  std::filesystem::path folder_;
  Config config_;
};

std::vector<NamedTensor> train(const Experiment& experiment, Communicator& communicator) {
  PhaseTimer timer;
  const auto network = make_network(experiment, "mlp", 5, communicator);
  network->to(at::kCPU, at::kDouble, at::MemoryFormat::ChannelsLast);
  Learner learner(experiment, network, communicator, timer);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    Loader loader(
        *experiment.train_images, experiment.labels,
        EpochPlan(experiment.candidates, experiment.global_batch, communicator.rank(), communicator.size(), 5, epoch),
        to_augment_options(experiment.config.data.augment), 2);
    for (auto batch = loader.next(); batch; batch = loader.next()) {
      batch->images = batch->images.to(at::kDouble);
      learner.step(*batch, 0.05, "test");
    }
  }
  return copy_state(*network);
}

double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, (a[i].tensor - b[i].tensor).norm().item<double>() / b[i].tensor.norm().item<double>());
  }
  return worst;
}

TEST_F(ImageFiles, RanksTrainAsOneRankDoesWithEveryAugmentation) {
  auto& augment = config_.data.augment;
  augment.flip = augment.random_resized_crop = true;
  augment.randaugment = 2;
  augment.erasing = 0.4;
  augment.cutmix.enabled = augment.mixup.enabled = true;
  augment.mixup.probability = 0.7;
  const auto together = prepare_experiment(config_, at::kCPU, world());
  ASSERT_NE(together->dataset.train.source, nullptr);
  const auto single = make_single_communicator(at::kCPU);
  const auto alone = prepare_experiment(config_, at::kCPU, *single);
  const auto one = train(*alone, *single);
  EXPECT_LT(relative_difference(train(*together, world()), one), 1e-9) << world().size() << " ranks";
  EXPECT_EQ(relative_difference(train(*alone, *single), one), 0.0) << "a repeat is bit-equal";

  Config plain = config_;
  plain.data.augment = {};
  EXPECT_GT(relative_difference(train(*prepare_experiment(plain, at::kCPU, *single), *single), one), 1e-3);
}

TEST_F(ImageFiles, APackedFileTrainsAsTheFolderDoes) {
  const auto single = make_single_communicator(at::kCPU);
  Config packed = config_;
  packed.data.packed = (folder_ / "packed.sage").string();
  if (world().rank() == 0) pack_dataset(config_.data, {}, packed.data.packed);
  world().barrier();
  const auto held = prepare_experiment(config_, at::kCPU, world()),
             mapped = prepare_experiment(packed, at::kCPU, world());
  EXPECT_EQ(held->dataset.train.source, nullptr);
  ASSERT_NE(mapped->dataset.train.source, nullptr);
  EXPECT_EQ(relative_difference(train(*mapped, world()), train(*held, world())), 0.0);
}

TEST_F(ImageFiles, AnImageThatDoesNotDecodeIsLeftOutOnAllRanks) {
  if (world().rank() == 0) {
    write("train/even/04.jpg", "no image");
    write("train/odd/21.jpg", test::photo(30, 30, 1).substr(0, 400));
    write("val/odd/2.jpg", "");
  }
  world().barrier();
  Config config = config_;
  config.data.corrupt_images = "skip";
  const auto single = make_single_communicator(at::kCPU);
  // Even numbers come first: 04 is the third, 21 the last.
  std::vector<std::int64_t> expected;
  for (std::int64_t id = 0; id < 21; ++id) {
    if (id != 2) expected.push_back(id);
  }
  for (const bool on_the_fly : {false, true}) {
    config.data.augment.random_resized_crop = on_the_fly;
    const auto experiment = prepare_experiment(config, at::kCPU, world());
    EXPECT_EQ(experiment->dataset.train.source != nullptr, on_the_fly);
    EXPECT_EQ(experiment->candidates, expected);
    EXPECT_EQ(experiment->dataset.train.unreadable, (std::vector<std::int64_t>{2, 21}));
    EXPECT_EQ(experiment->dataset.test.readable_ids(), (std::vector<std::int64_t>{0, 1, 3}));
    EXPECT_LT(relative_difference(train(*experiment, world()),
                                  train(*prepare_experiment(config, at::kCPU, *single), *single)),
              1e-9);
  }
  // Fatal: one error, that names the first.
  config.data.corrupt_images = "fatal";
  config.data.augment.random_resized_crop = false;
  int errors = 0;
  try {
    prepare_experiment(config, at::kCPU, world());
  } catch (const DataError& error) {
    errors = 1;
    EXPECT_NE(std::string(error.what()).find("train/even/04.jpg"), std::string::npos) << error.what();
  } catch (const PeerFailed& failure) {
    EXPECT_EQ(failure.status(), static_cast<int>(ExitStatus::data));
  }
  at::Tensor sum = at::full({1}, errors, at::kLong);
  world().all_reduce_sum(sum);
  EXPECT_EQ(sum.item<std::int64_t>(), 1);
}

}  // namespace
}  // namespace sage
