#include "core/random_projection.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include "support/matrices.h"

namespace sage {
namespace {

TEST(RandomProjection, IsAFunctionOfSeedAndPlace) {
  const at::Tensor a = random_projection(7, 100, 300, at::kCPU);
  EXPECT_TRUE(at::equal(a, random_projection(7, 100, 300, at::kCPU)));
  EXPECT_FALSE(at::equal(a, random_projection(8, 100, 300, at::kCPU)));
  // An entry does not depend on how many columns there are.
  EXPECT_TRUE(at::equal(a.narrow(1, 0, 40), random_projection(7, 100, 40, at::kCPU)));
}

TEST(RandomProjection, HasTheMomentsOfItsDistribution) {
  const std::int64_t size = 128, dimension = 2000;
  const at::Tensor s = random_projection(1, size, dimension, at::kCPU).to(at::kDouble);
  const auto count = static_cast<double>(size * dimension);
  EXPECT_NEAR(s.mean().item<double>(), 0.0, 5.0 / std::sqrt(count * size));
  EXPECT_NEAR(s.square().mean().item<double>() * size, 1.0, 5.0 * std::sqrt(2.0 / count));
  EXPECT_NEAR(s.pow(4).mean().item<double>() * size * size, 3.0, 5.0 * std::sqrt(96.0 / count));
  // Rows and columns are independent: correlations within 5 / sqrt(n).
  const at::Tensor rows = at::mm(s, s.t()) * (static_cast<double>(size) / static_cast<double>(dimension));
  rows.diagonal().zero_();
  EXPECT_LE(rows.abs().max().item<double>(), 5.5 / std::sqrt(static_cast<double>(dimension)));
}

TEST(RandomProjection, KeepsLengths) {
  const at::Tensor g = testing::normal_matrix(50, 3000, 4);
  const at::Tensor s = random_projection(3, 512, 3000, at::kCPU).to(at::kDouble);
  const at::Tensor ratio = at::mm(g, s.t()).square().sum(1) / g.square().sum(1);
  EXPECT_LE((ratio - 1.0).abs().max().item<double>(), 5.0 * std::sqrt(2.0 / 512.0));
}

}  // namespace
}  // namespace sage
