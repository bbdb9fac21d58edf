#include "models/noise.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "models/oracle.h"
#include "models/registry.h"

namespace sage {
namespace {

std::unique_ptr<Classifier> make(const std::string& name) {
  auto model = make_model(ModelConfig{.name = name}, {3, 8, 8}, 10, 1);
  testing::disturb(*model);
  return model;
}

at::Tensor noise_of(Classifier& model, std::uint64_t seed, std::int64_t step, const std::vector<std::int64_t>& ids) {
  at::Tensor rows = at::full({static_cast<std::int64_t>(ids.size()), model.noise_width()}, std::nan(""), at::kFloat);
  model.write_noise(seed, step, ids, rows);
  return rows;
}

TEST(Noise, IsThatOfTorchvisionsNetworks) {
  // Dropout of the 1,280 features and, in EfficientNet-B0, one draw for each of the 9 blocks with a shortcut.
  const std::map<std::string, std::int64_t> widths = {
      {"cnn", 0}, {"resnet18", 0}, {"vit_tiny", 0}, {"mobilenet_v2", 1280}, {"efficientnet_b0", 1289}};
  for (const auto& [name, width] : widths) EXPECT_EQ(make(name)->noise_width(), width) << name;
}

TEST(Noise, OfAnExampleIsAPureFunctionOfSeedStepAndId) {
  const auto model = make("efficientnet_b0");
  const std::vector<std::int64_t> ids = {5, 3, 1'000'000'007, 5, 0};
  const at::Tensor whole = noise_of(*model, 7, 11, ids);
  EXPECT_TRUE(at::equal(whole[0], whole[3]));
  EXPECT_FALSE(at::equal(whole[0], whole[1]));
  for (std::size_t i = 0; i < ids.size(); ++i) {  // whatever else is in the batch, and whoever holds it
    EXPECT_TRUE(at::equal(noise_of(*model, 7, 11, {ids[i]})[0], whole[static_cast<std::int64_t>(i)]));
  }
  at::set_num_threads(2);
  EXPECT_TRUE(at::equal(noise_of(*model, 7, 11, ids), whole));
  at::set_num_threads(1);
  EXPECT_FALSE(at::equal(noise_of(*model, 7, 12, ids), whole));
  EXPECT_FALSE(at::equal(noise_of(*model, 8, 11, ids), whole));
}

TEST(Noise, DropsWithItsProbabilityAndKeepsTheMean) {
  const auto model = make("efficientnet_b0");
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; id < 4000; ++id) ids.push_back(id);
  const at::Tensor noise = noise_of(*model, 7, 1, ids);
  // The blocks with a shortcut, of 16 in all: the second in each group and those behind it.
  const std::vector<int> with_shortcut = {2, 4, 6, 7, 9, 10, 12, 13, 14};
  for (std::size_t block = 0; block < with_shortcut.size(); ++block) {
    const double probability = 0.2 * with_shortcut[block] / 16;
    const at::Tensor column = noise.select(1, static_cast<std::int64_t>(block));
    EXPECT_NEAR(column.eq(0).to(at::kDouble).mean().item<double>(), probability, 5 * std::sqrt(probability / 4000));
    EXPECT_NEAR(column.max().item<double>(), 1.0 / (1.0 - probability), 1e-6);
  }
  const at::Tensor dropout = noise.narrow(1, 9, 1280);
  EXPECT_NEAR(dropout.eq(0).to(at::kDouble).mean().item<double>(), 0.2, 1e-3);
  EXPECT_NEAR(dropout.to(at::kDouble).mean().item<double>(), 1.0, 1e-3);
  // No two layers or features draw alike.
  EXPECT_NEAR((dropout.select(1, 0) * dropout.select(1, 1)).mean().item<double>(), 1.0, 0.05);
}

TEST(Noise, MultipliesWhatItBelongsToInTrainingModeOnly) {
  Noise depth(0.5, 1), dropout(0.25, 6);
  const at::Tensor x = testing::random_tensor({3, 6, 2, 2}, "x"), features = testing::random_tensor({3, 6}, "features");
  EXPECT_TRUE(at::equal(depth.forward(x), x)) << "no noise was given";
  const at::Tensor of_depth = at::tensor({0.0F, 2.0F, 2.0F}).view({3, 1});
  depth.set(of_depth);
  EXPECT_TRUE(at::equal(depth.forward(x), x * of_depth.view({3, 1, 1, 1})));
  EXPECT_THROW(depth.forward(x.narrow(0, 0, 2)), InternalError);
  depth.eval();
  EXPECT_TRUE(at::equal(depth.forward(x), x));
  const at::Tensor of_features = testing::random_tensor({3, 6}, "factors");
  dropout.set(of_features);
  EXPECT_TRUE(at::equal(dropout.forward(features), features * of_features));
  EXPECT_EQ(dropout.forward(features.to(at::kBFloat16)).scalar_type(), at::kBFloat16);
  dropout.set({});
  EXPECT_TRUE(at::equal(dropout.forward(features), features));
  EXPECT_EQ(Noise(0.0, 6).width(), 0);
  EXPECT_THROW(Noise(1.0, 1), InternalError);
}

TEST(Noise, IsThereForOnePassOnly) {
  const auto model = make("efficientnet_b0");
  const at::NoGradGuard no_grad;
  const at::Tensor images = testing::random_tensor({3, 3, 8, 8}, "images");
  const at::Tensor noise = noise_of(*model, 1, 2, {4, 5, 6});
  model->to(at::kCPU, at::kDouble);
  const at::Tensor input = images.to(at::kDouble);
  const at::Tensor plain = model->forward(input), noisy = model->forward(input, noise);
  EXPECT_FALSE(at::equal(plain, noisy));
  EXPECT_TRUE(at::equal(model->forward(input), plain));
  EXPECT_TRUE(at::equal(model->forward(input, noise), noisy));
  // All ones are no noise.
  EXPECT_TRUE(at::equal(model->forward(input, at::ones_like(noise)), plain));
  model->eval();
  EXPECT_TRUE(at::equal(model->forward(input, noise), model->forward(input)));
  EXPECT_THROW(model->forward(input, noise.narrow(0, 0, 2)), InternalError);
  EXPECT_THROW(model->forward(input, noise.narrow(1, 0, 9)), InternalError);
}

}  // namespace
}  // namespace sage
