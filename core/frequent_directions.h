// Frequent Directions: a deterministic sketch of a stream of rows.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "core/sketch_state.h"

namespace sage {

struct FrequentDirectionsOptions {
  std::int64_t dimension = 0;  ///< D, columns of every row
  std::int64_t size = 256;     ///< ell >= 2; with max_size > 0 the size to start with
  double alpha = 1.0;          ///< part of the directions that a shrink takes from, the lowest; 1: Frequent Directions
  double buffer = 2.0;         ///< buffer rows / size, 2 to 4: more is more accurate and decomposes less often
  double epsilon = 0.01;       ///< `auto` size: grow where the error bound would pass epsilon ||A||_F^2
  std::int64_t max_size = 0;   ///< `auto` size: never above; 0: the size is fixed
  at::Device device = at::kCPU;
  at::ScalarType type = at::kFloat;  ///< float32, or float64
};

/// Keeps a matrix S of at most ell - 1 rows such that, for the rows A seen so far, every unit vector x and every k <
/// ell,
///
///   0 <= ||A x||^2 - ||S x||^2 <= error_bound() <= ||A - A_k||_F^2 / (ell - k),
///   ell error_bound() <= ||A||_F^2 - ||S||_F^2.
///
/// With alpha < 1 (alpha-FD) a shrink takes from the lowest alpha ell directions alone, and both bounds hold with alpha
/// ell in the place of ell: worse promises, and smaller errors in practice where few directions matter.
///
/// Rows gather in a buffer; when it is full, its Gram matrix K = B B^T is decomposed and every direction loses the
/// ell-th largest eigenvalue. The rows that stay are orthogonal, so that only the blocks of K that concern new rows are
/// computed, and all of K every 16th time, against drift. Where D <= ell nothing is lost.
///
/// Liberty: "Simple and Deterministic Matrix Sketching", KDD 2013. Ghashami, Liberty, Phillips, Woodruff: "Frequent
/// Directions", SIAM J. Comput. 45(5), 2016. Desai, Ghashami, Phillips: "Improved Practical Matrix Sketching with
/// Guarantees", IEEE TKDE 28(7), 2016 (alpha-FD).
class FrequentDirections {
 public:
  /// Throws ConfigError for a size below 2, alpha outside (0, 1], a buffer outside 2 to 4, or no columns.
  explicit FrequentDirections(const FrequentDirectionsOptions& options);

  /// A writable view [n, D] of free buffer rows, n = min(max_rows, free rows). Shrinks first if fewer than `at_least`
  /// rows are free (by default: if none is). Valid until the next call of any other member function.
  at::Tensor claim(std::int64_t max_rows, std::int64_t at_least = 1);
  /// Enters the first `rows` of the claimed rows. `squared_norms` ([rows], float64, CPU) spares their computation where
  /// the caller has them from row_squared_norms(). A row that is not finite is a TrainingError that names its position
  /// in the stream; nothing is entered then.
  void commit(std::int64_t rows, const at::Tensor& squared_norms = {});
  /// Enters rows [n, D] of any n: the same as one row after the other, bit for bit on the same buffer positions.
  void update(const at::Tensor& rows);

  /// Puts the rows of `other` behind the rows of this sketch. The larger size holds. Another dimension is an
  /// InternalError.
  void merge(const FrequentDirections& other);

  /// Whether no row has been seen.
  bool empty() const { return rows_seen_ == 0; }
  std::int64_t rows_seen() const { return rows_seen_; }
  std::int64_t dimension() const { return rule_.dimension; }
  /// ell as it is now.
  std::int64_t size() const { return rule_.size; }
  std::int64_t buffer_rows() const { return buffer_.size(0); }
  /// Shrinks since the start.
  std::int64_t shrink_count() const { return shrinks_; }
  /// ||A||_F^2, in float64.
  double squared_norm() const { return squared_norm_; }

  /// The finished sketch, after a last shrink on a copy: the stream may go on. Costs a decomposition where rows have
  /// come in since the last one.
  SketchState state() const;
  /// S alone: [r, D].
  at::Tensor matrix() const { return state().rows; }
  /// Delta of matrix(), its last shrink included.
  double error_bound() const;
  /// The largest eigenvalue of S^T S.
  double largest_eigenvalue() const;

  /// Forgets everything but the options and the memory.
  void reset();

  /// All of the state, buffer included: a sketch read back goes on exactly as this one would.
  std::string serialize() const;
  /// Throws CheckpointError if `bytes` are not a whole, undamaged sketch of a version that is known, or if its buffer
  /// would take more than `memory_limit` bytes.
  static FrequentDirections deserialize(std::string_view bytes, at::Device device = at::kCPU,
                                        std::int64_t memory_limit = std::int64_t{1} << 40);

  /// One line for people.
  std::string to_string() const;

 private:
  std::int64_t free_rows() const { return buffer_.size(0) - filled_; }
  at::Tensor pending_gram(bool whole) const;
  ShrinkDecision decide() const;
  void shrink();
  void grow(std::int64_t size);
  void load(const SketchState& state);

  FrequentDirectionsOptions options_;
  ShrinkRule rule_;           // the size may have grown beyond the options'
  at::Tensor buffer_;         // [buffer rows, D]
  at::Tensor known_;          // [kept], float64, CPU: the first rows are orthogonal with these squared norms
  std::int64_t filled_ = 0;   // rows in use, the kept ones first
  std::int64_t claimed_ = 0;  // rows handed out by claim()
  std::int64_t rows_seen_ = 0;
  std::int64_t shrinks_ = 0;
  std::int64_t smallest_size_ = 0;
  double error_bound_ = 0.0;  // Delta without the last shrink
  double squared_norm_ = 0.0;
};

}  // namespace sage
