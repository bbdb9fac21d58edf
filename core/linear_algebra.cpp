#include "core/linear_algebra.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"

namespace sage {
namespace {

// Wide enough for full speed of a product, narrow enough that a block's sum stays accurate and its copies small.
constexpr std::int64_t kProductColumns = 65536;
constexpr std::int64_t kNormColumns = 8192;

/// Calls body(first column, columns) for consecutive blocks.
template <class Body>
void for_column_blocks(std::int64_t columns, std::int64_t block, const Body& body) {
  for (std::int64_t first = 0; first < columns; first += block) body(first, std::min(block, columns - first));
}

}  // namespace

at::Tensor row_squared_norms(const at::Tensor& rows) {
  const at::NoGradGuard no_grad;
  at::Tensor norms = at::zeros({rows.size(0)}, rows.options().dtype(at::kDouble));
  for_column_blocks(rows.size(1), kNormColumns, [&](std::int64_t first, std::int64_t count) {
    norms.add_(rows.narrow(1, first, count).to(at::kDouble).square().sum(1));
  });
  return norms.cpu();
}

at::Tensor cross_gram(const at::Tensor& a, const at::Tensor& b, bool precise) {
  require(a.size(1) == b.size(1), "cross_gram: the matrices must have the same number of columns");
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard full_precision;
  at::Tensor gram = at::zeros({a.size(0), b.size(0)}, a.options().dtype(at::kDouble));
  if (gram.numel() == 0) return gram.cpu();
  for_column_blocks(a.size(1), kProductColumns, [&](std::int64_t first, std::int64_t count) {
    at::Tensor left = a.narrow(1, first, count), right = b.narrow(1, first, count);
    if (precise) {
      left = left.to(at::kDouble);
      right = right.to(at::kDouble);
    }
    gram.add_(at::mm(left, right.t()));
  });
  return gram.cpu();
}

at::Tensor rotate_rows(const at::Tensor& rotation, std::span<const at::Tensor> parts) {
  require(!parts.empty(), "rotate_rows: nothing to rotate");
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard full_precision;
  const auto options = parts[0].options();
  const std::int64_t columns = parts[0].size(1);
  std::vector<at::Tensor> factors;
  std::int64_t row = 0;
  for (const at::Tensor& part : parts) {
    factors.push_back(
        rotation.narrow(1, row, part.size(0)).contiguous().to(options.device(), options.dtype().toScalarType()));
    row += part.size(0);
  }
  require(row == rotation.size(1), "rotate_rows: the rotation does not fit the rows");
  at::Tensor rotated = at::zeros({rotation.size(0), columns}, options);
  for_column_blocks(columns, kProductColumns, [&](std::int64_t first, std::int64_t count) {
    at::Tensor block = rotated.narrow(1, first, count);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].size(0) > 0) block.add_(at::mm(factors[i], parts[i].narrow(1, first, count)));
    }
  });
  return rotated;
}

void rotate_rows_in_place(const at::Tensor& rotation, at::Tensor rows) {
  require(rotation.size(1) <= rows.size(0) && rotation.size(0) <= rotation.size(1),
          "rotate_rows_in_place: the rotation does not fit the rows");
  const at::NoGradGuard no_grad;
  const at::NoTF32Guard full_precision;
  const at::Tensor factor = rotation.to(rows.device(), rows.scalar_type());
  const at::Tensor from = rows.narrow(0, 0, rotation.size(1)), to = rows.narrow(0, 0, rotation.size(0));
  if (to.size(0) == 0) return;
  for_column_blocks(rows.size(1), kProductColumns, [&](std::int64_t first, std::int64_t count) {
    to.narrow(1, first, count).copy_(at::mm(factor, from.narrow(1, first, count)));
  });
}

SymmetricEigen symmetric_eigen(const at::Tensor& matrix) {
  if (!at::isfinite(matrix).all().item<bool>()) {
    throw TrainingError(
        "the Gram matrix of the gradients is not finite: their norms exceed 1e19, more than float32 products hold; "
        "lower the learning rate or check the loss");
  }
  auto [values, vectors] = at::linalg_eigh(matrix, "L");
  return {values.flip(0).contiguous(), vectors.flip(1).contiguous()};
}

}  // namespace sage
