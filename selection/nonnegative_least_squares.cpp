#include "selection/nonnegative_least_squares.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace sage {
namespace {

double dot(const double* a, const double* b, std::size_t count) {
  double sums[4] = {};
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (std::size_t v = 0; v < 4; ++v) sums[v] += a[i + v] * b[i + v];
  }
  double rest = 0.0;
  for (; i < count; ++i) rest += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest;
}

}  // namespace

bool NonNegativeLeastSquares::add(std::int64_t tag, std::span<const double> products, double square, double target) {
  const std::size_t count = tags_.size();
  require(products.size() == count, "one product for each column in use");
  std::vector<double> row(count + 1);
  for (std::size_t j = 0; j < count; ++j) {
    row[j] = (products[j] - dot(row.data(), factor_[j].data(), j)) / factor_[j][j];
  }
  const double whole = square + lambda_, left = whole - dot(row.data(), row.data(), count);
  constexpr double independent = 1e-12;
  if (!(left > independent * whole)) return false;
  row[count] = std::sqrt(left);
  reduced_.push_back((target - dot(row.data(), reduced_.data(), count)) / row[count]);
  factor_.push_back(std::move(row));
  tags_.push_back(tag);
  weights_.push_back(0.0);
  return true;
}

std::vector<double> NonNegativeLeastSquares::solution() const {
  std::vector<double> result = reduced_;
  for (std::size_t j = result.size(); j-- > 0;) {
    result[j] /= factor_[j][j];
    for (std::size_t i = 0; i < j; ++i) result[i] -= result[j] * factor_[j][i];
  }
  return result;
}

void NonNegativeLeastSquares::remove(std::size_t column) {
  const auto at = static_cast<std::ptrdiff_t>(column);
  tags_.erase(tags_.begin() + at);
  weights_.erase(weights_.begin() + at);
  factor_.erase(factor_.begin() + at);
  // The rows below reach one column too far: each rotation of two neighbouring columns brings one back.
  for (std::size_t j = column; j < factor_.size(); ++j) {
    const double a = factor_[j][j], b = factor_[j][j + 1], length = std::hypot(a, b);
    const double cosine = a / length, sine = b / length;
    for (std::size_t i = j; i < factor_.size(); ++i) {
      double* row = factor_[i].data();
      const double left = row[j], right = row[j + 1];
      row[j] = cosine * left + sine * right;
      row[j + 1] = cosine * right - sine * left;
    }
    const double left = reduced_[j], right = reduced_[j + 1];
    reduced_[j] = cosine * left + sine * right;
    reduced_[j + 1] = cosine * right - sine * left;
    factor_[j].resize(j + 1);
  }
  reduced_.resize(factor_.size());
}

std::vector<std::int64_t> NonNegativeLeastSquares::fit() {
  std::vector<std::int64_t> removed;
  while (!tags_.empty()) {
    const std::vector<double> wanted = solution();
    double step = 1.0;
    for (std::size_t j = 0; j < wanted.size(); ++j) {
      if (wanted[j] <= 0.0) step = std::min(step, weights_[j] / (weights_[j] - wanted[j]));
    }
    if (std::all_of(wanted.begin(), wanted.end(), [](double w) { return w > 0.0; })) {
      weights_ = wanted;
      return removed;
    }
    // As far as all stay non-negative; those that are zero there leave. At least the one that set the step does.
    std::vector<std::size_t> leaving;
    for (std::size_t j = 0; j < wanted.size(); ++j) {
      const bool sets_step = wanted[j] <= 0.0 && weights_[j] / (weights_[j] - wanted[j]) <= step;
      const bool is_nothing = wanted[j] <= 0.0 && wanted[j] == weights_[j];
      weights_[j] += step * (wanted[j] - weights_[j]);
      if (sets_step || is_nothing || weights_[j] < 0.0) leaving.push_back(j);
    }
    for (std::size_t i = leaving.size(); i-- > 0;) {
      removed.push_back(tags_[leaving[i]]);
      remove(leaving[i]);
    }
  }
  return removed;
}

}  // namespace sage
