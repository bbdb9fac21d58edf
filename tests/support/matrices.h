// Matrices for tests, from named random streams, and the slow float64 oracles that sketches are compared with.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigvalsh.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/mm.h>

#include <cmath>
#include <cstdint>

#include "core/random.h"

namespace sage::testing {

/// [rows, columns] standard normal, float64.
inline at::Tensor normal_matrix(std::int64_t rows, std::int64_t columns, std::uint64_t seed) {
  at::Tensor matrix = at::empty({rows, columns}, at::kDouble);
  RandomStream stream(seed, "test matrix");
  double* values = matrix.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < rows * columns; ++i) values[i] = stream.normal();
  return matrix;
}

/// [rows, columns] of rank `rank` with singular values that fall by `decay` from one to the next, plus noise.
inline at::Tensor decaying_matrix(std::int64_t rows, std::int64_t columns, std::int64_t rank, double decay,
                                  double noise, std::uint64_t seed) {
  at::Tensor left = normal_matrix(rows, rank, seed);
  const at::Tensor right = normal_matrix(rank, columns, seed + 1);
  for (std::int64_t j = 0; j < rank; ++j) left.select(1, j).mul_(std::pow(decay, static_cast<double>(j)));
  at::Tensor matrix = at::mm(left, right);
  if (noise > 0.0) matrix.add_(normal_matrix(rows, columns, seed + 2), noise);
  return matrix;
}

/// A^T A in float64.
inline at::Tensor second_moment(const at::Tensor& rows) {
  const at::Tensor a = rows.to(at::kDouble);
  return at::mm(a.t(), a);
}

/// Largest and smallest eigenvalue of a symmetric matrix.
inline double largest_eigenvalue(const at::Tensor& matrix) { return at::linalg_eigvalsh(matrix)[-1].item<double>(); }
inline double smallest_eigenvalue(const at::Tensor& matrix) { return at::linalg_eigvalsh(matrix)[0].item<double>(); }

/// min over k < size of ||A - A_k||_F^2 / (size - k): the best of the bounds that Frequent Directions promises.
inline double promised_error(const at::Tensor& rows, std::int64_t size) {
  const at::Tensor squares = at::linalg_svdvals(rows.to(at::kDouble)).square();
  double tail = squares.sum().item<double>(), best = tail / static_cast<double>(size);
  for (std::int64_t k = 1; k < size && k <= squares.size(0); ++k) {
    tail -= squares[k - 1].item<double>();
    best = std::min(best, std::max(tail, 0.0) / static_cast<double>(size - k));
  }
  return best;
}

}  // namespace sage::testing
