#include "data/loader.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace sage {
namespace {

const std::vector<float> means = {0.4f, 0.5f, 0.6f}, deviations = {0.2f, 0.25f, 0.3f};

class LoaderTest : public ::testing::Test {
 protected:
  LoaderTest() : images_(at::empty({61, 3, 8, 8}, at::kByte)), ids_(61), labels_(61) {
    auto* bytes = images_.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t i = 0; i < images_.numel(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 37 % 251);
    std::iota(ids_.begin(), ids_.end(), std::int64_t{0});
    for (std::size_t i = 0; i < labels_.size(); ++i) labels_[i] = static_cast<std::int64_t>(i * 7 % 10);
  }
  ImageStore store(bool channels_last = false) const {
    return ImageStore(images_, means, deviations, at::kCPU, channels_last);
  }
  EpochPlan plan(int rank = 0, int ranks = 1, std::int64_t batch = 8) const {
    return EpochPlan(ids_, batch, rank, ranks, 5, 3);
  }

  at::Tensor images_;
  std::vector<std::int64_t> ids_, labels_;
  AugmentOptions augment_{2, true};
};

TEST_F(LoaderTest, IsBitEqualForAnyNumberOfWorkers) {
  const ImageStore images = store(true);
  std::vector<Batch> reference;
  Loader direct(images, labels_, plan(), augment_, 0);
  for (Batch& batch : direct) reference.push_back(std::move(batch));
  ASSERT_EQ(reference.size(), 8u);
  ASSERT_EQ(direct.steps(), 8);
  EXPECT_EQ(reference.back().images.size(0), 5);
  EXPECT_TRUE(reference.front().images.is_contiguous(at::MemoryFormat::ChannelsLast));
  for (const std::int64_t workers : {1, 3, 20}) {
    Loader loader(images, labels_, plan(), augment_, workers);
    std::size_t step = 0;
    for (Batch& batch : loader) {
      ASSERT_LT(step, reference.size());
      EXPECT_EQ(batch.step, static_cast<std::int64_t>(step));
      EXPECT_EQ(batch.ids, reference[step].ids);
      EXPECT_TRUE(at::equal(batch.images, reference[step].images));
      EXPECT_TRUE(at::equal(batch.labels, reference[step].labels));
      ++step;
    }
    EXPECT_EQ(step, reference.size());
    EXPECT_FALSE(loader.next().has_value());
  }
}

TEST_F(LoaderTest, RanksTogetherYieldWhatOneRankYields) {
  const ImageStore images = store();
  Loader one(images, labels_, plan(), augment_, 0);
  std::vector<Loader> loaders;
  for (int rank = 0; rank < 7; ++rank) loaders.emplace_back(images, labels_, plan(rank, 7), augment_, rank % 3);
  for (Batch& whole : one) {
    std::vector<at::Tensor> parts, label_parts;
    for (Loader& loader : loaders) {
      const auto part = loader.next();
      ASSERT_TRUE(part.has_value());
      EXPECT_EQ(part->global_count, whole.global_count);
      EXPECT_EQ(part->images.size(0), static_cast<std::int64_t>(part->ids.size()));
      parts.push_back(part->images);
      label_parts.push_back(part->labels);
    }
    // The last batch holds 5 examples for 7 ranks: two of them get an empty part.
    if (whole.step == 7) {
      EXPECT_EQ(parts.back().sizes(), (std::vector<std::int64_t>{0, 3, 8, 8}));
    }
    EXPECT_TRUE(at::equal(at::cat(parts), whole.images));
    EXPECT_TRUE(at::equal(at::cat(label_parts), whole.labels));
  }
  for (Loader& loader : loaders) EXPECT_FALSE(loader.next().has_value());
}

TEST_F(LoaderTest, HowFarItWorksAheadChangesNothing) {
  const ImageStore images = store();
  for (const std::int64_t workers : {1, 3}) {
    for (const std::int64_t prefetch : {1, 5, 64}) {
      Loader inline_loader(images, labels_, plan(), augment_, 0),
          loader(images, labels_, plan(), augment_, workers, prefetch);
      for (const Batch& expected : inline_loader) {
        const auto batch = loader.next();
        ASSERT_TRUE(batch.has_value());
        EXPECT_TRUE(at::equal(batch->images, expected.images) && batch->ids == expected.ids);
      }
    }
  }
}

TEST_F(LoaderTest, LabelsAreTheGivenOnes) {
  const ImageStore images = store();
  Loader loader(images, labels_, plan(), augment_, 1);
  for (const Batch& batch : loader) {
    ASSERT_EQ(batch.labels.scalar_type(), at::kLong);
    for (std::size_t i = 0; i < batch.ids.size(); ++i) {
      EXPECT_EQ(batch.labels.const_data_ptr<std::int64_t>()[i], batch.ids[i] * 7 % 10);
    }
  }
}

TEST_F(LoaderTest, WithoutAugmentationEqualsImagesOf) {
  const ImageStore images = store();
  Loader loader(images, labels_, plan(), {}, 2);
  for (const Batch& batch : loader) EXPECT_TRUE(at::equal(batch.images, images.images_of(batch.ids)));
  EXPECT_EQ(images.images_of({}).sizes(), (std::vector<std::int64_t>{0, 3, 8, 8}));
  EXPECT_FLOAT_EQ(images.images_of(std::vector<std::int64_t>{1})[0][2][0][0].item<float>(),
                  (static_cast<float>((192 + 128) * 37 % 251) / 255.0f - 0.6f) / 0.3f);
}

TEST_F(LoaderTest, AnExceptionComesOutWhenItsBatchIsDue) {
  const ImageStore images = store();
  for (const std::int64_t workers : {0, 1, 3}) {
    EpochPlan bad(ids_, 8, 0, 1, 5, 3);
    const std::int64_t victim = bad.global_batch(3)[2];
    std::vector<std::int64_t> ids = ids_;
    ids[static_cast<std::size_t>(std::find(ids_.begin(), ids_.end(), victim) - ids_.begin())] = 1000;  // same position
    Loader loader(images, labels_, EpochPlan(ids, 8, 0, 1, 5, 3), augment_, workers);
    for (int step = 0; step < 3; ++step) ASSERT_TRUE(loader.next().has_value()) << workers;
    EXPECT_THROW(loader.next(), InternalError) << workers;
    EXPECT_FALSE(loader.next().has_value()) << workers;
  }
}

TEST_F(LoaderTest, EndsCleanlyInTheMiddleOfAnEpoch) {
  const ImageStore images = store();
  for (int taken = 0; taken < 4; ++taken) {
    for (int repeat = 0; repeat < 25; ++repeat) {
      Loader loader(images, labels_, plan(), augment_, 3);
      for (int i = 0; i < taken; ++i) ASSERT_TRUE(loader.next().has_value());
    }
  }
}

TEST_F(LoaderTest, EmptyPlanHasNoSteps) {
  const ImageStore images = store();
  Loader loader(images, labels_, EpochPlan({}, 8, 0, 1, 5, 3), augment_, 2);
  EXPECT_EQ(loader.steps(), 0);
  EXPECT_FALSE(loader.next().has_value());
}

TEST_F(LoaderTest, CropLargerThanTheImageIsAConfigError) {
  const ImageStore images = store();
  EXPECT_THROW(Loader(images, labels_, plan(), {8, false}, 0), ConfigError);
}

TEST(ToDevice, NumbersOfTheHostAreCopied) {
  std::vector<float> weights = {0.5F, -1.25F, 3.0F};
  std::vector<std::int64_t> ids = {std::int64_t{1} << 40, -2};
  const at::Tensor a = to_device(weights, at::kCPU), b = to_device(ids, at::kCPU);
  weights = {0.0F, 0.0F, 0.0F};
  ids = {0, 0};
  ASSERT_EQ(a.scalar_type(), at::kFloat);
  ASSERT_EQ(b.scalar_type(), at::kLong);
  const float* values = a.const_data_ptr<float>();
  EXPECT_EQ(std::vector<float>(values, values + a.numel()), (std::vector<float>{0.5F, -1.25F, 3.0F}));
  const auto* numbers = b.const_data_ptr<std::int64_t>();
  EXPECT_EQ(std::vector<std::int64_t>(numbers, numbers + b.numel()),
            (std::vector<std::int64_t>{std::int64_t{1} << 40, -2}));
  EXPECT_EQ(to_device(std::span<const float>(), at::kCPU).numel(), 0);
}

}  // namespace
}  // namespace sage
