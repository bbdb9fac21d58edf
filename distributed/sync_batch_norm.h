// Batch normalisation with statistics over the examples of all ranks (Ioffe and Szegedy, 2015; merged as in Chan,
// Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
#pragma once
#include <ATen/core/Tensor.h>

#include "distributed/communicator.h"

namespace sage {

/// Training-mode batch normalisation of `input` [n, C] or [n, C, ...] over all dimensions but C and over ALL ranks,
/// which call it in the same order, forward and backward; n may differ between ranks and may be 0. One all-reduce in
/// the forward pass, one in the backward. In a world of one it is at::batch_norm. Where a channel has one
/// value in all, running_var stays: n / (n - 1) is undefined there.
///
/// weight, bias: [C] or undefined. running_mean, running_var: [C] or undefined; updated in place with `momentum`, the
/// variance unbiased by the count of all ranks. The gradients of weight and bias are this rank's share: their sum over
/// ranks is the whole, as for every other parameter. `communicator` must outlive the backward pass, and should be one
/// of its own where gradients are reduced during that pass, so that neither waits for the other.
at::Tensor sync_batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                           at::Tensor running_mean, at::Tensor running_var, double momentum, double eps,
                           Communicator& communicator);

}  // namespace sage
