#include "selection/clusters.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/matrices.h"

namespace sage {
namespace {

using testing::normal_matrix;

UnitVectors as_unit(const at::Tensor& rows) { return to_unit_length(rows.to(at::kFloat)); }

class ClusterDirectionsTest : public ::testing::Test {
 protected:
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
};

/// k-means the slow way, from the same first directions: the mean cosine to the nearest after each move.
std::vector<double> slow_means(at::Tensor directions, const at::Tensor& vectors, int moves) {
  std::vector<double> means;
  for (int move = 0; move < moves; ++move) {
    const at::Tensor cosines = at::mm(vectors, directions.t());
    const auto [best, nearest] = cosines.max(1);
    means.push_back(best.mean().item<double>());
    for (std::int64_t k = 0; k < directions.size(0); ++k) {
      const at::Tensor sum = vectors.index_select(0, (nearest == k).nonzero().squeeze(1)).sum(0);
      if (sum.norm().item<double>() > 0.0) directions[k].copy_(sum / sum.norm());
    }
  }
  return means;
}

TEST_F(ClusterDirectionsTest, IsSphericalKMeans) {
  const at::Tensor rows = normal_matrix(300, 6, 3);
  const UnitVectors vectors = as_unit(rows);
  const std::vector<std::int64_t> groups(300, 0);
  ClusterDirections clusters(1, 4, 6);
  clusters.begin(vectors.directions.narrow(0, 0, 40), std::span(groups).first(40), 5, 0);
  const at::Tensor first = clusters.directions()[0].clone();
  for (std::int64_t k = 0; k < 4; ++k) {
    EXPECT_NEAR(first[k].norm().item<double>(), 1.0, 1e-6);
    const at::Tensor same = at::mv(vectors.directions.narrow(0, 0, 40).to(at::kDouble), first[k]);
    EXPECT_NEAR(same.max().item<double>(), 1.0, 1e-6) << "first directions are examples of the sample";
  }
  const std::vector<double> expected = slow_means(first, vectors.directions.to(at::kDouble), 8);
  for (const double mean : expected) {
    clusters.add({vectors.directions.narrow(0, 0, 100), std::vector<bool>(100, false)}, std::span(groups).first(100));
    clusters.add({vectors.directions.narrow(0, 100, 200), std::vector<bool>(200, false)}, std::span(groups).first(200));
    clusters.move(*one_);
    EXPECT_NEAR(clusters.strength()[0], mean, 1e-9);
    EXPECT_EQ(clusters.counts().sum().item<double>(), 300.0);
  }
  EXPECT_TRUE(std::is_sorted(expected.begin(), expected.end())) << "no move makes it worse";
  EXPECT_GT(expected.back(), expected.front());
}

TEST_F(ClusterDirectionsTest, FindsThePartsOfEveryGroup) {
  // Group 0 has three parts, group 1 one, group 2 nothing, and one vector has no direction.
  const at::Tensor centres = at::eye(8, at::kDouble) * 10.0;
  std::vector<at::Tensor> rows;
  std::vector<std::int64_t> groups;
  for (int i = 0; i < 90; ++i) {
    rows.push_back(centres[i % 3].unsqueeze(0));
    groups.push_back(0);
  }
  for (int i = 0; i < 30; ++i) {
    rows.push_back(centres[5].unsqueeze(0));
    groups.push_back(1);
  }
  rows.push_back(at::zeros({1, 8}, at::kDouble));
  groups.push_back(1);
  const UnitVectors vectors =
      as_unit(at::cat(rows) + 0.3 * normal_matrix(121, 8, 2) * at::cat(rows).ne(0).any(1, true));
  ClusterDirections clusters(3, 3, 8);
  clusters.begin(vectors.directions, groups, 1, 0);
  int moves = 0;
  do {
    clusters.add(vectors, groups);
  } while (clusters.move(*one_) && ++moves < kClusterWalks);
  EXPECT_LT(moves, kClusterWalks) << "stands still once it is there";
  const std::vector<float> agreement = clusters.agreement(vectors, groups, -2.0f);
  for (std::size_t i = 0; i < 120; ++i) EXPECT_GT(agreement[i], 0.98f) << i;
  EXPECT_EQ(agreement[120], -2.0f);
  for (std::int64_t k = 0; k < 3; ++k) EXPECT_EQ(clusters.counts()[0][k].item<double>(), 30.0);
  EXPECT_EQ(clusters.directions()[2].abs().max().item<double>(), 0.0);
  EXPECT_EQ(clusters.strength()[2], 0.0);
  const std::vector<std::int64_t> nowhere = {2};
  EXPECT_EQ(clusters.agreement({vectors.directions.narrow(0, 0, 1), {false}}, nowhere, -2.0f)[0], -2.0f);
}

TEST_F(ClusterDirectionsTest, EqualVectorsMakeOneDirection) {
  const UnitVectors vectors = as_unit(at::ones({20, 5}, at::kDouble));
  const std::vector<std::int64_t> groups(20, 0);
  ClusterDirections clusters(1, 4, 5);
  clusters.begin(vectors.directions, groups, 1, 0);
  EXPECT_EQ(clusters.directions().square().sum(2).gt(0.5).sum().item<std::int64_t>(), 1);
  clusters.add(vectors, groups);
  clusters.move(*one_);
  for (const float cosine : clusters.agreement(vectors, groups, -2.0f)) EXPECT_NEAR(cosine, 1.0f, 1e-6f);
}

}  // namespace
}  // namespace sage
