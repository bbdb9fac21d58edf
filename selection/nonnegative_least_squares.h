// Non-negative ridge regression whose columns come one at a time: min over w >= 0 of ||A w - b||^2 + lambda ||w||^2.
// Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23, on a Cholesky factor of A^T A + lambda I that
// is extended with each column and, where a weight would turn negative, shrunk by Givens rotations.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sage {

class NonNegativeLeastSquares {
 public:
  explicit NonNegativeLeastSquares(double lambda) : lambda_(lambda) {}

  /// One more column a, known by `products` (with the columns in use, in their order), ||a||^2 and <a, b>. False, and
  /// nothing has changed, where it depends on those in use so nearly that float64 cannot tell. O(k^2).
  bool add(std::int64_t tag, std::span<const double> products, double square, double target);
  /// Solves for the columns in use. Those whose weight would be negative or zero go out of use: their tags are
  /// returned. The objective has not grown. O(k^2), and as much for each that goes.
  std::vector<std::int64_t> fit();

  const std::vector<std::int64_t>& tags() const { return tags_; }  ///< of the columns in use
  const std::vector<double>& weights() const { return weights_; }  ///< theirs, positive after fit()

 private:
  void remove(std::size_t column);
  std::vector<double> solution() const;

  double lambda_;
  std::vector<std::int64_t> tags_;
  std::vector<double> weights_;
  std::vector<std::vector<double>> factor_;  // rows of L, L L^T = A^T A + lambda I
  std::vector<double> reduced_;              // L^-1 A^T b
};

}  // namespace sage
