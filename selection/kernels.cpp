#include "selection/kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "selection/last_layer.h"

namespace sage {
namespace {

constexpr std::int64_t block_rows = 256;

/// float32 [n, n] from blocks of float64 rows [b, n]: block(first, count).
at::Tensor by_blocks(std::int64_t n, const std::function<at::Tensor(std::int64_t, std::int64_t)>& block) {
  at::Tensor all = at::empty({n, n}, at::kFloat);
  for (std::int64_t first = 0; first < n; first += block_rows) {
    const std::int64_t count = std::min(block_rows, n - first);
    all.narrow(0, first, count).copy_(block(first, count));
  }
  return all;
}

}  // namespace

std::int64_t largest_kernel(const SelectionConfig& config) {
  const double fits = std::sqrt(static_cast<double>(config.memory_limit_mib) * 1048576.0 / sizeof(float));
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(fits), 1, 16384);
}

at::Tensor gradient_similarity(const at::Tensor& features, const at::Tensor& residuals) {
  const at::Tensor extended = with_one(features);
  const at::Tensor squares = extended.square().sum(1) * residuals.square().sum(1);
  at::Tensor distance = by_blocks(features.size(0), [&](std::int64_t first, std::int64_t count) {
    const at::Tensor products = at::mm(extended.narrow(0, first, count), extended.t())
                                    .mul_(at::mm(residuals.narrow(0, first, count), residuals.t()));
    at::Tensor squared = squares.narrow(0, first, count).unsqueeze(1) + squares - products.mul_(2.0);
    for (std::int64_t i = 0; i < count; ++i) squared[i][first + i].zero_();
    return squared.clamp_min_(0.0).sqrt_();
  });
  const at::Tensor largest = distance.max();
  return distance.neg_().add_(largest);
}

at::Tensor similarity_by_cosine(const at::Tensor& features, const at::Tensor& residuals) {
  return by_blocks(features.size(0), [&](std::int64_t first, std::int64_t count) {
    at::Tensor cosine = at::mm(features.narrow(0, first, count), features.t());
    if (residuals.defined()) cosine.mul_(at::mm(residuals.narrow(0, first, count), residuals.t()));
    return cosine.mul_(0.5).add_(0.5).clamp_(0.0, 1.0);
  });
}

at::Tensor unit_rows(const at::Tensor& rows) {
  const at::Tensor norms = at::linalg_vector_norm(rows, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return rows / at::where(norms > 0.0, norms, 1.0);
}

}  // namespace sage
