// The slow way to per-example gradients: one backward pass of autograd per example, through the loss itself.
#pragma once
#include <ATen/core/Reduction.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/random.h"
#include "models/classifier.h"
#include "models/per_example_gradients.h"

namespace sage::testing {

inline at::Tensor random_tensor(at::IntArrayRef sizes, std::string_view name, double scale = 1.0, double shift = 0.0) {
  at::Tensor result = at::empty(sizes, at::kFloat);
  RandomStream stream(17, name);
  for (std::int64_t i = 0; i < result.numel(); ++i) {
    result.data_ptr<float>()[i] = static_cast<float>(scale * stream.normal() + shift);
  }
  return result;
}

inline at::Tensor random_labels(std::int64_t count, std::int64_t classes) {
  at::Tensor result = at::empty({count}, at::kLong);
  RandomStream stream(18, "labels");
  for (std::int64_t i = 0; i < count; ++i) {
    result.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(classes)));
  }
  return result;
}

/// Moves running statistics, affine parameters, biases and weights that are all alike away from 0 and 1, where mistakes
/// would not show.
inline void disturb(Module& model) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& buffer : model.named_buffers()) {
    if (buffer.name.ends_with("running_mean"))
      buffer.tensor.copy_(random_tensor(buffer.tensor.sizes(), buffer.name, 0.2));
    if (buffer.name.ends_with("running_var")) {
      buffer.tensor.copy_(random_tensor(buffer.tensor.sizes(), buffer.name, 0.2).abs_().add_(0.7));
    }
  }
  for (const NamedTensor& parameter : model.named_parameters()) {
    const bool is_constant = parameter.tensor.min().item<double>() == parameter.tensor.max().item<double>();
    if (parameter.tensor.dim() == 1 || is_constant)
      parameter.tensor.add_(random_tensor(parameter.tensor.sizes(), parameter.name, 0.1));
  }
}

/// [B, D] over the parameters of `slices`.
inline at::Tensor oracle_gradients(Classifier& model, const std::vector<ParameterSlice>& slices,
                                   const at::Tensor& images, const at::Tensor& labels, double label_smoothing) {
  const bool was_training = model.is_training();
  model.eval();
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    for (const at::Tensor& parameter : model.parameters()) parameter.mutable_grad().reset();
    const at::AutoGradMode grad_mode(true);
    at::cross_entropy_loss(model.forward(images.narrow(0, i, 1)), labels.narrow(0, i, 1), {}, at::Reduction::Sum, -100,
                           label_smoothing)
        .backward();
    std::vector<at::Tensor> parts;
    for (const ParameterSlice& slice : slices) {
      for (const NamedTensor& parameter : model.named_parameters()) {
        if (parameter.name == slice.name) parts.push_back(parameter.tensor.grad().contiguous().flatten());
      }
    }
    rows.push_back(at::cat(parts));
  }
  for (const at::Tensor& parameter : model.parameters()) parameter.mutable_grad().reset();
  model.train(was_training);
  return at::stack(rows);
}

/// The largest of the rows' ||a - b|| / ||b||.
inline double worst_relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).square().sum(1).sqrt() / y.square().sum(1).sqrt()).max().item<double>();
}

}  // namespace sage::testing
