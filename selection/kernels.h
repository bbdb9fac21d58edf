// Similarities between all examples of a group: the only matrices of n x n, and why such groups are cut into parts.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/config.h"

namespace sage {

/// The most examples whose kernel (4 n^2 bytes) fits selection.memory_limit_mib, and not more than 16,384 (1 GiB): the
/// time grows with the square too.
std::int64_t largest_kernel(const SelectionConfig& config);

/// max(D) - D for distances D of the last layer's gradients, from features [n, F] and residuals [n, C] (float64):
/// float32 [n, n], contiguous. ||g_i - g_j||^2 = <g_i, g_i> + <g_j, g_j> - 2 (r_i . r_j)(h_i . h_j + 1); computed by
/// blocks of rows.
at::Tensor gradient_similarity(const at::Tensor& features, const at::Tensor& residuals);

/// (1 + cosine) / 2 of features, or, where `residuals` is defined, of the last layer's gradients: float32 [n, n],
/// contiguous, in [0, 1]. `features` and `residuals` as unit_rows() makes them (of [h, 1] for gradients).
at::Tensor similarity_by_cosine(const at::Tensor& features, const at::Tensor& residuals);

/// Rows of unit length; rows of zeros stay.
at::Tensor unit_rows(const at::Tensor& rows);

}  // namespace sage
