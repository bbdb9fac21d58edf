#include "core/random_projection.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "support/matrices.h"

namespace sage {
namespace {

RandomProjectionOptions options(std::uint64_t seed, std::int64_t size, std::int64_t dimension,
                                ProjectionKind kind = ProjectionKind::gaussian, double density = -1.0) {
  RandomProjectionOptions result;
  result.seed = seed;
  result.size = size;
  result.dimension = dimension;
  result.kind = kind;
  result.density = density;
  return result;
}

constexpr ProjectionKind kKinds[] = {ProjectionKind::gaussian, ProjectionKind::rademacher, ProjectionKind::sparse};

TEST(RandomProjection, IsAFunctionOfSeedAndPlace) {
  for (const ProjectionKind kind : kKinds) {
    const at::Tensor a = random_projection(options(7, 100, 9000, kind, 0.3));
    EXPECT_TRUE(at::equal(a, random_projection(options(7, 100, 9000, kind, 0.3))));
    EXPECT_FALSE(at::equal(a, random_projection(options(8, 100, 9000, kind, 0.3))));
    // An entry does not depend on how many columns there are, nor on which of them are drawn together.
    EXPECT_TRUE(at::equal(a.narrow(1, 0, 40), random_projection(options(7, 100, 40, kind, 0.3))));
    EXPECT_TRUE(
        at::equal(a.narrow(1, 4000, 300), random_projection_columns(options(7, 100, 9000, kind, 0.3), 4000, 300)));
  }
}

/// Mean, variance and fourth moment within five standard errors, and rows that do not know of each other.
void expect_moments(const at::Tensor& projection, double fourth, double eighth) {
  const at::Tensor s = projection.to(at::kDouble) * std::sqrt(static_cast<double>(projection.size(0)));
  const auto count = static_cast<double>(s.numel());
  EXPECT_NEAR(s.mean().item<double>(), 0.0, 5.0 / std::sqrt(count));
  EXPECT_NEAR(s.square().mean().item<double>(), 1.0, 5.0 * std::sqrt((fourth - 1.0) / count) + 1e-6);
  EXPECT_NEAR(s.pow(4).mean().item<double>(), fourth, 5.0 * std::sqrt((eighth - fourth * fourth) / count) + 1e-5);
  const at::Tensor rows = at::mm(s, s.t()) / static_cast<double>(s.size(1));
  rows.diagonal().zero_();
  EXPECT_LE(rows.abs().max().item<double>(), 5.5 / std::sqrt(static_cast<double>(s.size(1))));
  const at::Tensor columns = at::mm(s.t(), s).narrow(0, 0, 200).narrow(1, 0, 200) / static_cast<double>(s.size(0));
  columns.diagonal().zero_();
  EXPECT_LE(columns.abs().max().item<double>(), 6.5 / std::sqrt(static_cast<double>(s.size(0))));
}

TEST(RandomProjection, HasTheMomentsOfItsDistribution) {
  expect_moments(random_projection(options(1, 128, 2000)), 3.0, 105.0);
  expect_moments(random_projection(options(1, 128, 2000, ProjectionKind::rademacher)), 1.0, 1.0);
  const double third = 1.0 / 3.0;
  expect_moments(random_projection(options(1, 128, 2000, ProjectionKind::sparse, third)), 3.0, 27.0);
}

TEST(RandomProjection, SparseHoldsAsManyZerosAsItSays) {
  for (const double density : {0.5, -1.0}) {
    const at::Tensor s = random_projection(options(5, 64, 2500, ProjectionKind::sparse, density));
    const double expected = density < 0.0 ? 1.0 / 50.0 : density, count = 64.0 * 2500.0;
    const double filled = s.ne(0.0).sum().item<double>() / count;
    EXPECT_NEAR(filled, expected, 5.0 * std::sqrt(expected * (1.0 - expected) / count));
    EXPECT_NEAR(s.abs().max().item<double>(), 1.0 / std::sqrt(64.0 * expected), 1e-6);
  }
  for (const double density : {0.0, 1.5}) {
    EXPECT_THROW(random_projection(options(5, 4, 9, ProjectionKind::sparse, density)), ConfigError);
  }
}

TEST(RandomProjection, KeepsLengths) {
  const at::Tensor g = testing::normal_matrix(50, 3000, 4);
  for (const ProjectionKind kind : kKinds) {
    const at::Tensor s = random_projection(options(3, 512, 3000, kind)).to(at::kDouble);
    const at::Tensor ratio = at::mm(g, s.t()).square().sum(1) / g.square().sum(1);
    EXPECT_LE((ratio - 1.0).abs().max().item<double>(), 5.0 * std::sqrt(2.0 / 512.0));
  }
}

TEST(RandomProjection, InSixteenBitsItIsTheSameRounded) {
  for (const ProjectionKind kind : kKinds) {
    RandomProjectionOptions with = options(3, 70, 5000, kind);
    const at::Tensor wide = random_projection(with);
    with.type = at::kBFloat16;
    EXPECT_TRUE(at::equal(random_projection(with), wide.to(at::kBFloat16)));
  }
}

TEST(RandomProjection, KindsByName) {
  EXPECT_EQ(projection_kind("gaussian"), ProjectionKind::gaussian);
  EXPECT_EQ(projection_kind("rademacher"), ProjectionKind::rademacher);
  EXPECT_EQ(projection_kind("sparse"), ProjectionKind::sparse);
  EXPECT_THROW(projection_kind("dense"), ConfigError);
}

}  // namespace
}  // namespace sage
