#include "selection/nonnegative_least_squares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"

namespace sage {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Columns with their right-hand side.
struct Problem {
  std::vector<Vector> columns;
  Vector target;
  Problem(std::size_t count, std::size_t height, std::uint64_t seed) {
    RandomStream stream(seed, "problem");
    for (std::size_t j = 0; j < count; ++j) {
      columns.emplace_back();
      for (std::size_t i = 0; i < height; ++i) columns[j].push_back(stream.normal() + 0.3);
    }
    for (std::size_t i = 0; i < height; ++i) target.push_back(stream.normal() + 1.0);
  }
  bool add_to(NonNegativeLeastSquares& fit, std::size_t j) const {
    Vector products;
    for (const std::int64_t tag : fit.tags())
      products.push_back(dot(columns[static_cast<std::size_t>(tag)], columns[j]));
    return fit.add(static_cast<std::int64_t>(j), products, dot(columns[j], columns[j]), dot(columns[j], target));
  }
  Vector residual(const NonNegativeLeastSquares& fit) const {
    Vector left = target;
    for (std::size_t j = 0; j < fit.tags().size(); ++j) {
      for (std::size_t i = 0; i < left.size(); ++i) {
        left[i] -= fit.weights()[j] * columns[static_cast<std::size_t>(fit.tags()[j])][i];
      }
    }
    return left;
  }
  double objective(const NonNegativeLeastSquares& fit, double lambda) const {
    const Vector left = residual(fit);
    return dot(left, left) + lambda * dot(fit.weights(), fit.weights());
  }
};

TEST(NonNegativeLeastSquares, TheConditionsOfOptimalityHoldAtEachStep) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (const double lambda : {0.0, 0.7}) {
      const Problem problem(12, 20, seed);
      NonNegativeLeastSquares fit(lambda);
      double before = dot(problem.target, problem.target);
      std::size_t removals = 0;
      for (std::size_t j = 0; j < problem.columns.size(); ++j) {
        ASSERT_TRUE(problem.add_to(fit, j));
        removals += fit.fit().size();
        const Vector left = problem.residual(fit);
        ASSERT_EQ(fit.tags().size(), fit.weights().size());
        for (std::size_t i = 0; i < fit.tags().size(); ++i) {
          EXPECT_GT(fit.weights()[i], 0.0);
          // Stationary in each weight in use.
          const double slope =
              dot(problem.columns[static_cast<std::size_t>(fit.tags()[i])], left) - lambda * fit.weights()[i];
          EXPECT_NEAR(slope, 0.0, 1e-9);
        }
        const double now = problem.objective(fit, lambda);
        EXPECT_LE(now, before + 1e-9);
        before = now;
      }
      if (seed == 0) {
        EXPECT_GT(removals, 0u) << "the test must see weights that turn negative";
      }
    }
  }
}

TEST(NonNegativeLeastSquares, ColumnsThatComeAgainReachTheOptimumOverAll) {
  const Problem problem(10, 15, 77);
  NonNegativeLeastSquares fit(0.0);
  // Lawson and Hanson: as long as a column out of use would help, it comes in.
  for (int step = 0; step < 200; ++step) {
    const Vector left = problem.residual(fit);
    std::size_t best = 0;
    double largest = 1e-9;
    for (std::size_t j = 0; j < problem.columns.size(); ++j) {
      const auto& tags = fit.tags();
      if (std::find(tags.begin(), tags.end(), static_cast<std::int64_t>(j)) != tags.end()) continue;
      const double slope = dot(problem.columns[j], left);
      if (slope > largest) {
        largest = slope;
        best = j;
      }
    }
    if (largest == 1e-9) break;
    ASSERT_TRUE(problem.add_to(fit, best));
    fit.fit();
  }
  // Projected gradient, far too long.
  Vector weights(problem.columns.size(), 0.0);
  for (int step = 0; step < 200000; ++step) {
    Vector left = problem.target;
    for (std::size_t j = 0; j < weights.size(); ++j) {
      for (std::size_t i = 0; i < left.size(); ++i) left[i] -= weights[j] * problem.columns[j][i];
    }
    for (std::size_t j = 0; j < weights.size(); ++j) {
      weights[j] = std::max(0.0, weights[j] + 0.005 * dot(problem.columns[j], left));
    }
  }
  Vector fitted(weights.size(), 0.0);
  for (std::size_t j = 0; j < fit.tags().size(); ++j)
    fitted[static_cast<std::size_t>(fit.tags()[j])] = fit.weights()[j];
  for (std::size_t j = 0; j < weights.size(); ++j) EXPECT_NEAR(fitted[j], weights[j], 1e-6) << j;
}

TEST(NonNegativeLeastSquares, ADependentColumnChangesNothing) {
  Problem problem(3, 8, 5);
  problem.columns[2] = problem.columns[0];
  NonNegativeLeastSquares fit(0.0);
  ASSERT_TRUE(problem.add_to(fit, 0));
  fit.fit();
  const Vector before = fit.weights();
  EXPECT_FALSE(problem.add_to(fit, 2));
  EXPECT_EQ(fit.weights(), before);
  NonNegativeLeastSquares ridge(0.5);  // a ridge tells even twins apart
  ASSERT_TRUE(problem.add_to(ridge, 0));
  ridge.fit();
  EXPECT_TRUE(problem.add_to(ridge, 2));
  ridge.fit();
  ASSERT_EQ(ridge.weights().size(), 2u);
  EXPECT_NEAR(ridge.weights()[0], ridge.weights()[1], 1e-9);
}

}  // namespace
}  // namespace sage
