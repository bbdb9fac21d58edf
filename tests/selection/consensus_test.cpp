#include "selection/consensus.h"

#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <limits>

#include "support/matrices.h"

namespace sage {
namespace {

TEST(Consensus, IsTheNormalisedSumOfUnitVectors) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  const at::Tensor projected = testing::normal_matrix(30, 7, 1).to(at::kFloat) * 5.0;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 30; ++i) labels.push_back(i % 3 == 2 ? 1 : 0);  // class 2 stays empty
  const UnitVectors unit = to_unit_length(projected);
  for (const bool per_class : {true, false}) {
    Consensus consensus(3, 7, per_class);
    for (std::int64_t i = 0; i < 30; i += 10) {
      UnitVectors part{unit.directions.narrow(0, i, 10), std::vector<bool>(10, false)};
      consensus.add(part, std::span(labels).subspan(static_cast<std::size_t>(i), 10));
    }
    consensus.reduce(*one);
    const std::vector<float> agreement = consensus.agreement(unit, labels, -2.0f);

    for (std::int64_t i = 0; i < 30; ++i) {  // the slow way
      std::vector<double> sum(7, 0.0);
      double count = 0.0;
      for (std::int64_t j = 0; j < 30; ++j) {
        if (per_class && labels[static_cast<std::size_t>(j)] != labels[static_cast<std::size_t>(i)]) continue;
        const double norm = projected[j].to(at::kDouble).norm().item<double>();
        for (std::int64_t f = 0; f < 7; ++f) sum[static_cast<std::size_t>(f)] += projected[j][f].item<double>() / norm;
        count += 1.0;
      }
      double length = 0.0, product = 0.0;
      const double norm = projected[i].to(at::kDouble).norm().item<double>();
      for (std::int64_t f = 0; f < 7; ++f) {
        length += sum[static_cast<std::size_t>(f)] * sum[static_cast<std::size_t>(f)];
        product += sum[static_cast<std::size_t>(f)] * projected[i][f].item<double>() / norm;
      }
      length = std::sqrt(length);
      EXPECT_NEAR(agreement[static_cast<std::size_t>(i)], product / length, 1e-6);
      const auto direction = static_cast<std::size_t>(per_class ? labels[static_cast<std::size_t>(i)] : 0);
      EXPECT_NEAR(consensus.strength()[direction], length / count, 1e-6);
    }
    if (per_class) {
      EXPECT_EQ(consensus.strength()[2], 0.0);
      EXPECT_EQ(consensus.directions()[2].abs().sum().item<double>(), 0.0);
    }
  }
}

TEST(Consensus, LeavesOutWhatIsZeroOrNotFinite) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  at::Tensor projected = testing::normal_matrix(6, 4, 2).to(at::kFloat);
  projected[1].zero_();
  projected[3][2] = std::numeric_limits<float>::quiet_NaN();
  projected[4][0] = -std::numeric_limits<float>::infinity();
  projected[5].mul_(1e-25);  // squares underflow float32: still a direction
  const UnitVectors unit = to_unit_length(projected);
  EXPECT_EQ(unit.degenerate, (std::vector<bool>{false, true, false, true, true, false}));
  EXPECT_NEAR(unit.directions[5].norm().item<double>(), 1.0, 1e-6);
  EXPECT_EQ(unit.directions[3].abs().sum().item<double>(), 0.0);
  const std::vector<std::int64_t> labels(6, 0);
  Consensus consensus(1, 4, true);
  consensus.add(unit, labels);
  consensus.reduce(*one);
  EXPECT_NEAR(consensus.directions()[0].norm().item<double>(), 1.0, 1e-12);
  const std::vector<float> agreement = consensus.agreement(unit, labels, -2.0f);
  EXPECT_EQ(agreement[1], -2.0f);
  EXPECT_EQ(agreement[4], -2.0f);
  EXPECT_GE(agreement[0], -1.0f);
}

}  // namespace
}  // namespace sage
