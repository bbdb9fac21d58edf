// The few matrix operations that sketches need, at the precision that their guarantees need: products of float32 rows
// are formed with TF32 off and summed in float64 over blocks of columns; decompositions run in float64 on the CPU,
// where low-rank matrices do not trouble them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace sage {

/// Squared Euclidean norm of each row of `rows` [n, D] (any floating type, any device): [n], float64, CPU. A row holds
/// a value that is not finite exactly where its norm is not finite (float32 squares cannot overflow float64).
at::Tensor row_squared_norms(const at::Tensor& rows);

/// Copies rows [n, D] into `to` [n, D] and returns their squared norms (those of `to`, where the types differ), as
/// row_squared_norms() does: one way through the memory for both.
at::Tensor copy_rows(const at::Tensor& rows, at::Tensor to);

/// a b^T for a [n, D] and b [m, D] of the same type and device: [n, m], float64, CPU. `precise` converts to float64
/// before multiplying, for the narrow matrices that must lose nothing.
at::Tensor cross_gram(const at::Tensor& a, const at::Tensor& b, bool precise = false);

/// The rows `first` to n - 1 of the Gram matrix of `rows` [n, D] up to its diagonal, [n - first, n], as cross_gram()
/// computes it. Right of the diagonal it is not complete: who wants a symmetric matrix mirrors it.
at::Tensor lower_gram(const at::Tensor& rows, std::int64_t first = 0, bool precise = false);

/// rotation [k, n] (float64, CPU) times the parts stacked on top of each other (n rows in all, D columns each), without
/// ever stacking them: [k, D] in the parts' type and device.
at::Tensor rotate_rows(const at::Tensor& rotation, std::span<const at::Tensor> parts);
/// The same into `to` [k, D], which may be columns of a wider matrix but no part of `parts`.
void rotate_rows(const at::Tensor& rotation, std::span<const at::Tensor> parts, at::Tensor to);

/// rows[0:k] = rotation [k, n] rows[0:n], in place, by blocks of columns.
void rotate_rows_in_place(const at::Tensor& rotation, at::Tensor rows);

/// Eigenvalues in descending order and the eigenvectors as columns in the same order.
struct SymmetricEigen {
  at::Tensor values;   ///< [n], float64, CPU
  at::Tensor vectors;  ///< [n, n], float64, CPU
};

/// Of a symmetric matrix [n, n] (float64, CPU; the lower triangle is read). Throws TrainingError if it holds a value
/// that is not finite: the gradients that it was formed from are too large for float32 products.
SymmetricEigen symmetric_eigen(const at::Tensor& matrix);

}  // namespace sage
