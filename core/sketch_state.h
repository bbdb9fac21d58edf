// A finished Frequent Directions sketch as plain numbers and tensors, and the one rule by which sketches shrink: the
// streaming update, the merge of two sketches and the all-reduce over ranks all decide through decompose().
//
// Ghashami, Liberty, Phillips, Woodruff: "Frequent Directions: Simple and Deterministic Matrix Sketching", SIAM J.
// Comput. 45(5), 2016, section 3 (merging). Desai, Ghashami, Phillips: "Improved Practical Matrix Sketching with
// Guarantees", IEEE TKDE 28(7), 2016, section 3 (alpha-FD).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace sage {

/// How far a sketch may shrink.
struct ShrinkRule {
  std::int64_t size = 0;       ///< ell: the ell-th eigenvalue is subtracted, so that at most ell - 1 rows stay
  std::int64_t dimension = 0;  ///< D; where D <= size nothing need be lost and nothing is subtracted
  double epsilon = 0.0;        ///< `auto` size: grow instead where the error would pass epsilon ||A||_F^2
  std::int64_t max_size = 0;   ///< `auto` size: never above; 0: the size is fixed
  double alpha = 1.0;          ///< the ell-th eigenvalue is taken from the lowest alpha ell directions alone

  /// Directions that a shrink takes from, ceil(alpha ell): at least the last one.
  std::int64_t shrunk_directions() const;
  bool lossless() const { return dimension <= size; }
  /// Eigenvalues up to this fraction of the largest are rounding of products in `type`: their rows are dropped.
  double drop_tolerance(at::ScalarType type) const { return lossless() || type == at::kDouble ? 1e-14 : 1e-7; }
};

/// A sketch S (r x D) of the rows A seen so far: 0 <= ||Ax||^2 - ||Sx||^2 <= error_bound for every unit vector x.
struct SketchState {
  ShrinkRule rule;
  at::Tensor rows;         ///< S: [r, D], orthogonal rows in descending order of norm, r <= size - 1 (or D if lossless)
  at::Tensor eigenvalues;  ///< [r], float64, CPU: the squared norms of the rows, which are the eigenvalues of S S^T
  double error_bound = 0.0;        ///< Delta: what all shrinks and merges so far may have taken from any direction
  double squared_norm = 0.0;       ///< ||A||_F^2, in float64
  std::int64_t rows_seen = 0;      ///< rows of A
  std::int64_t smallest_size = 0;  ///< the smallest ell at which a shrink took something; 0: none did

  /// A sketch of nothing: the identity of merging.
  static SketchState none(const ShrinkRule& rule, at::TensorOptions options);
  std::int64_t row_count() const { return rows.size(0); }
  double largest_eigenvalue() const;
  double sketch_squared_norm() const;  ///< ||S||_F^2
};

constexpr std::int64_t kSketchNumbers = 10;
/// Everything of a sketch but its tensors, to be sent or stored: [kSketchNumbers], float64. Counts stay exact below
/// 2^53.
at::Tensor sketch_numbers(const SketchState& state);
/// The inverse: `rows` and `eigenvalues` are left to be filled; returns their number of rows. Throws CheckpointError if
/// a count is not one.
std::int64_t read_sketch_numbers(const at::Tensor& numbers, SketchState& state);

/// What a shrink of n rows B does: S = rotation B.
struct ShrinkDecision {
  at::Tensor rotation;     ///< [k, n], float64, CPU: sqrt((lambda_j - delta) / lambda_j) u_j^T; where j is spared u_j^T
  at::Tensor eigenvalues;  ///< [k], float64, CPU: lambda_j - delta (lambda_j), descending
  double charge = 0.0;     ///< what error_bound grows by: max(delta, the largest eigenvalue of a dropped row)
  std::int64_t size = 0;   ///< the ell by which was shrunk: rule.size, or more where `auto` let it grow
};

/// Shrinks rows with Gram matrix `gram` ([n, n], float64, CPU; the lower triangle is read). `type` is the rows' own
/// type, `error_bound` and `squared_norm` are those of everything behind the rows (they only matter to the `auto`
/// size).
ShrinkDecision decompose(const at::Tensor& gram, const ShrinkRule& rule, at::ScalarType type, double error_bound,
                         double squared_norm);

/// The Gram matrix of two finished sketches on top of each other: only `cross` = S_low S_high^T is not known already.
at::Tensor merged_gram(const at::Tensor& low_eigenvalues, const at::Tensor& high_eigenvalues, const at::Tensor& cross);

/// The rule of a merged sketch: the larger size.
ShrinkRule merged_rule(const ShrinkRule& low, const ShrinkRule& high);

/// Everything of a merged sketch but rows and eigenvalues: counts and bounds add up.
SketchState merged_numbers(const SketchState& low, const SketchState& high);

/// Enters a shrink into the numbers of `state`: error bound, size, smallest size.
void charge_shrink(SketchState& state, const ShrinkDecision& decision);

/// The sketch of low's rows followed by high's: sizes may differ (the larger holds), dimensions may not
/// (InternalError).
SketchState merge_states(const SketchState& low, const SketchState& high);

}  // namespace sage
