#include "data/mixing.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "core/random.h"
#include "data/loader.h"

namespace sage {
namespace {

at::Tensor noise(std::int64_t count, std::int64_t side, bool channels_last) {
  at::Tensor images =
      at::empty({count, 3, side, side},
                at::TensorOptions(at::kFloat)
                    .memory_format(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous));
  RandomStream stream(2, "images");
  for (std::int64_t i = 0; i < images.numel(); ++i)
    images.mutable_data_ptr<float>()[i] = static_cast<float>(stream.normal());
  return images;
}

TEST(MixWithNext, EqualsThePixelByPixelOracle) {
  for (const bool channels_last : {false, true}) {
    for (const Mix& mix : {Mix{Mix::Kind::mixup, 0.3, {}}, Mix{Mix::Kind::cutmix, 0.8, {1, 2, 3, 4}}, Mix{}}) {
      const at::Tensor images = noise(5, 7, channels_last), before = images.clone();
      const at::Tensor mixed = mix_with_next(images, mix);
      ASSERT_EQ(mixed.size(0), 4);
      EXPECT_TRUE(mixed.is_contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous));
      for (std::int64_t i = 0; i < 4; ++i) {
        for (std::int64_t c = 0; c < 3; ++c) {
          for (std::int64_t y = 0; y < 7; ++y) {
            for (std::int64_t x = 0; x < 7; ++x) {
              const float own = before[i][c][y][x].item<float>(), other = before[i + 1][c][y][x].item<float>();
              const bool inside = y >= 1 && y < 4 && x >= 2 && x < 6;
              const float expected = mix.kind == Mix::Kind::mixup    ? 0.3f * own + (1.0f - 0.3f) * other
                                     : mix.kind == Mix::Kind::cutmix ? (inside ? other : own)
                                                                     : own;
              ASSERT_EQ(mixed[i][c][y][x].item<float>(), expected);
            }
          }
        }
      }
    }
  }
}

TEST(ChooseMix, HasItsProbabilityAndDistribution) {
  constexpr std::int64_t count = 20000;
  for (const double alpha : {0.2, 1.0, 3.0}) {
    MixOptions options;
    options.mixup = true;
    options.mixup_alpha = alpha;
    options.mixup_probability = 0.75;
    double sum = 0.0, squares = 0.0;
    std::int64_t mixed = 0;
    for (std::int64_t step = 0; step < count; ++step) {
      const Mix mix = choose_mix(options, 1, 3, step, {32, 32});
      if (mix.kind == Mix::Kind::none) continue;
      ASSERT_TRUE(mix.own_part >= 0.0 && mix.own_part <= 1.0);
      ++mixed;
      sum += mix.own_part;
      squares += mix.own_part * mix.own_part;
    }
    const auto n = static_cast<double>(mixed);
    EXPECT_NEAR(n, 0.75 * count, 5 * std::sqrt(count * 0.75 * 0.25));
    const double variance = 0.25 / (2 * alpha + 1);  // of Beta(alpha, alpha)
    EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(variance / n));
    EXPECT_NEAR(squares / n - sum / n * sum / n, variance, 0.05 * variance);
  }
}

TEST(ChooseMix, TheBoxIsWhatTheLabelsSay) {
  MixOptions options;
  options.cutmix = options.mixup = true;
  int cut = 0, mixed = 0;
  double parts = 0.0;
  for (std::int64_t step = 0; step < 4000; ++step) {
    const Mix mix = choose_mix(options, 1, 3, step, {20, 30});
    if (mix.kind != Mix::Kind::cutmix) {
      mixed += mix.kind == Mix::Kind::mixup;
      continue;
    }
    ++cut;
    parts += mix.own_part;
    ASSERT_TRUE(mix.box.y >= 0 && mix.box.x >= 0 && mix.box.y + mix.box.height <= 20 &&
                mix.box.x + mix.box.width <= 30);
    EXPECT_DOUBLE_EQ(mix.own_part, 1.0 - static_cast<double>(mix.box.height * mix.box.width) / 600.0);
  }
  EXPECT_EQ(cut + mixed, 4000) << "what CutMix leaves is for MixUp, whose probability is 1";
  EXPECT_NEAR(cut, 2000, 160);
  EXPECT_GT(parts / cut, 0.5) << "part of a box can lie outside";
}

class MixedLoader : public ::testing::Test {
 protected:
  MixedLoader() : images_(at::empty({61, 3, 8, 8}, at::kByte)), ids_(61), labels_(61) {
    RandomStream stream(3, "bytes");
    for (std::int64_t i = 0; i < images_.numel(); ++i) {
      images_.mutable_data_ptr<std::uint8_t>()[i] = static_cast<std::uint8_t>(stream() & 255);
    }
    std::iota(ids_.begin(), ids_.end(), std::int64_t{0});
    for (std::size_t i = 0; i < labels_.size(); ++i) labels_[i] = static_cast<std::int64_t>(i * 7 % 10);
    options_.flip = true;
    options_.random_resized_crop = true;
    options_.randaugment = 2;
    options_.erasing = 0.3;
    options_.mix.cutmix = options_.mix.mixup = true;
    options_.mix.mixup_probability = 0.6;
  }
  EpochPlan plan(int rank = 0, int ranks = 1) const { return EpochPlan(ids_, 8, rank, ranks, 5, 3); }

  const std::vector<float> means_ = {0.4f, 0.5f, 0.6f}, deviations_ = {0.2f, 0.25f, 0.3f};
  at::Tensor images_;
  std::vector<std::int64_t> ids_, labels_;
  AugmentOptions options_;
};

TEST_F(MixedLoader, RanksAndWorkersTogetherYieldWhatOneThreadYields) {
  const ImageStore store(images_, means_, deviations_, at::kCPU, true);
  for (const int ranks : {1, 2, 3, 4, 7}) {
    Loader one(store, labels_, plan(), options_, 0);
    std::vector<Loader> loaders;
    for (int rank = 0; rank < ranks; ++rank)
      loaders.emplace_back(store, labels_, plan(rank, ranks), options_, rank % 3);
    std::map<Mix::Kind, int> kinds;
    for (Batch& whole : one) {
      std::vector<at::Tensor> images, others;
      for (Loader& loader : loaders) {
        const auto part = loader.next();
        ASSERT_TRUE(part.has_value());
        images.push_back(part->images);
        if (part->ids.empty()) continue;
        EXPECT_EQ(part->own_part, whole.own_part);
        ASSERT_EQ(part->other_labels.defined(), whole.other_labels.defined());
        if (part->other_labels.defined()) others.push_back(part->other_labels);
      }
      EXPECT_TRUE(at::equal(at::cat(images), whole.images));
      ++kinds[whole.other_labels.defined() ? Mix::Kind::mixup : Mix::Kind::none];
      if (!whole.other_labels.defined()) continue;
      EXPECT_TRUE(at::equal(at::cat(others), whole.other_labels));
      // The other label is that of the next example of the batch, and of the first for the last.
      for (std::size_t i = 0; i < whole.ids.size(); ++i) {
        EXPECT_EQ(whole.other_labels[static_cast<std::int64_t>(i)].item<std::int64_t>(),
                  labels_[static_cast<std::size_t>(whole.ids[(i + 1) % whole.ids.size()])]);
      }
    }
    EXPECT_EQ(kinds.size(), 2u) << "some batches are mixed, some are not";
  }
}

TEST_F(MixedLoader, AnEpochThatGoesOnMixesAsOneThatWasNotStopped) {
  const ImageStore store(images_, means_, deviations_, at::kCPU, false);
  Loader whole(store, labels_, plan(), options_, 0);
  EpochPlan rest = plan();
  rest.skip(24);
  Loader resumed(store, labels_, std::move(rest), options_, 2);
  for (int i = 0; i < 3; ++i) whole.next();
  for (Batch& expected : whole) {
    const auto batch = resumed.next();
    ASSERT_TRUE(batch.has_value());
    EXPECT_TRUE(at::equal(batch->images, expected.images));
    EXPECT_EQ(batch->own_part, expected.own_part);
  }
}

}  // namespace
}  // namespace sage
