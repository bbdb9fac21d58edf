// Products of a loss's Hessian with vectors, and from them estimates of its diagonal.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "core/random.h"

namespace sage {

/// How H z comes about, both exact: the gradient of z . gradient, or the directional derivative of the gradient along z
/// (forward-mode differentiation of the backward pass; Pearlmutter, "Fast exact multiplication by the Hessian", 1994).
enum class HessianProduct { double_backward, forward_over_reverse };

/// selection.crest.hessian. `auto` is double_backward, which is the faster of the two on this project's networks
/// (benchmarks/crest_fit): to time both in the run would make its result depend on the clock.
HessianProduct to_hessian_product(const std::string& name);

/// Cross entropy of each example, logits [B, C] and labels int64 [B] -> [B], with `smoothing` of the target's mass
/// spread over all classes: the values of at::cross_entropy_loss, made of operations whose backward pass LibTorch can
/// differentiate forward (it cannot for nll_loss, nor for batch normalisation: models/layers.cpp has that one).
at::Tensor cross_entropy_by_operations(const at::Tensor& logits, const at::Tensor& labels, double smoothing);

/// All parameters in one vector [D], each in the order of a contiguous tensor. A copy.
at::Tensor flattened_parameters(std::span<const at::Tensor> parameters);

/// `dimension` signs, +1 or -1 with equal probability, float32 on `device`.
at::Tensor random_signs(RandomStream stream, std::int64_t dimension, at::Device device);

/// Adds the gradient of `loss()` to `gradient` [D] and z * (H z) to `diagonal` [D] for the signs z = `probe` [D]: its
/// expectation is the diagonal of the Hessian H, and it is the diagonal itself where H is diagonal (Hutchinson 1990;
/// Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix", 2007). The number of columns is that of
/// flattened_parameters(). Takes the memory of about three training steps on the same examples. Returns the loss.
double add_derivatives(const std::function<at::Tensor()>& loss, std::span<const at::Tensor> parameters,
                       const at::Tensor& probe, HessianProduct how, at::Tensor gradient, at::Tensor diagonal);

}  // namespace sage
