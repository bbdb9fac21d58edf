// Gradients of the last layer in their factored form g_i = [r_i; r_i h_i^T] = r_i (x) [h_i, 1]: never an n x D matrix.
#pragma once
#include <ATen/core/Tensor.h>

#include <span>

#include "distributed/communicator.h"
#include "selection/group_selection.h"

namespace sage {

/// [h, 1]: float64 [n, F + 1], contiguous.
at::Tensor with_one(const at::Tensor& features);

/// <g_i, M> = r_i^T M [h_i, 1] for M [C, F + 1] (float64): what [n] examples have in common with a direction. n C (F +
/// 1) multiply-adds; scratch n x C.
void correlate(const at::Tensor& residuals, const at::Tensor& extended, const at::Tensor& direction,
               std::span<double> out);

/// ALL ranks of the communicator: the sum over examples of r_i [h_i, 1]^T, float64 [C, F + 1].
at::Tensor sum_of_gradients(const at::Tensor& residuals, const at::Tensor& extended, Communicator& communicator);

/// Rows [h, 1, r], float64 [n, F + 1 + C], for SharedRows; and the parts of one of them.
at::Tensor joined(const at::Tensor& extended, const at::Tensor& residuals);

}  // namespace sage
