#include "core/exact_covariance.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "core/frequent_directions.h"
#include "support/matrices.h"

namespace sage {
namespace {

TEST(ExactCovariance, IsTheSecondMoment) {
  const at::Tensor rows = testing::decaying_matrix(300, 40, 40, 0.9, 0.1, 1).to(at::kFloat);
  ExactCovariance covariance(40, at::kCPU);
  for (std::int64_t i = 0; i < 300; i += 50) covariance.update(rows.narrow(0, i, 50));
  const at::Tensor truth = testing::second_moment(rows);
  const double largest = testing::largest_eigenvalue(truth);
  EXPECT_LE((covariance.covariance() - truth).abs().max().item<double>(), 1e-6 * largest);
  const SketchState state = covariance.state();
  EXPECT_LE((testing::second_moment(state.rows) - truth).abs().max().item<double>(), 2e-6 * largest);
  EXPECT_EQ(state.error_bound, 0.0);
  EXPECT_EQ(state.rows_seen, 300);
  EXPECT_NEAR(state.squared_norm, truth.trace().item<double>(), 1e-6 * state.squared_norm);
  EXPECT_NEAR(state.largest_eigenvalue(), largest, 1e-5 * largest);
}

TEST(ExactCovariance, AgreesWithALosslessSketch) {
  const at::Tensor rows = testing::normal_matrix(200, 10, 1).to(at::kFloat);
  ExactCovariance covariance(10, at::kCPU);
  covariance.update(rows);
  FrequentDirectionsOptions options;
  options.dimension = 10;
  options.size = 10;
  FrequentDirections sketch(options);
  sketch.update(rows);
  const at::Tensor difference =
      testing::second_moment(covariance.state().rows) - testing::second_moment(sketch.matrix());
  EXPECT_LE(difference.abs().max().item<double>(), 1e-3);
  EXPECT_LE(difference.abs().max().item<double>(), 2e-6 * sketch.largest_eigenvalue());
}

TEST(ExactCovariance, OfNothingIsEmpty) {
  const SketchState state = ExactCovariance(5, at::kCPU).state();
  EXPECT_EQ(state.row_count(), 0);
  EXPECT_EQ(state.largest_eigenvalue(), 0.0);
}

TEST(ExactCovariance, NamesTheRowThatIsNotFinite) {
  ExactCovariance covariance(3, at::kCPU);
  at::Tensor rows = testing::normal_matrix(4, 3, 1).to(at::kFloat);
  covariance.update(rows);
  rows[2][0] = std::numeric_limits<float>::infinity();
  try {
    covariance.update(rows);
    FAIL() << "accepted a row that is not finite";
  } catch (const TrainingError& error) {
    EXPECT_NE(std::string(error.what()).find("row 6"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace sage
