#include "core/sketch_state.h"

#include <ATen/ops/diag.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/linear_algebra.h"

namespace sage {

std::int64_t ShrinkRule::shrunk_directions() const {
  const auto count = static_cast<std::int64_t>(std::ceil(alpha * static_cast<double>(size)));
  return std::clamp<std::int64_t>(count, 1, size);
}

SketchState SketchState::none(const ShrinkRule& rule, at::TensorOptions options) {
  SketchState state;
  state.rule = rule;
  state.rows = at::empty({0, rule.dimension}, options);
  state.eigenvalues = at::empty({0}, at::kDouble);
  return state;
}

double SketchState::largest_eigenvalue() const {
  return eigenvalues.numel() == 0 ? 0.0 : eigenvalues[0].item<double>();
}

double SketchState::sketch_squared_norm() const { return eigenvalues.sum().item<double>(); }

at::Tensor sketch_numbers(const SketchState& state) {
  return at::tensor({static_cast<double>(state.row_count()), static_cast<double>(state.rule.size),
                     static_cast<double>(state.rule.dimension), state.rule.epsilon,
                     static_cast<double>(state.rule.max_size), state.error_bound, state.squared_norm,
                     static_cast<double>(state.rows_seen), static_cast<double>(state.smallest_size), state.rule.alpha},
                    at::kDouble);
}

std::int64_t read_sketch_numbers(const at::Tensor& numbers, SketchState& state) {
  const double* value = numbers.const_data_ptr<double>();
  const auto count = [&](int i) {
    if (!(value[i] >= 0.0 && value[i] < 9e15)) throw CheckpointError("the numbers of a sketch are damaged");
    return static_cast<std::int64_t>(value[i]);
  };
  if (!(value[9] > 0.0 && value[9] <= 1.0)) throw CheckpointError("the numbers of a sketch are damaged");
  state.rule = {count(1), count(2), value[3], count(4), value[9]};
  state.error_bound = value[5];
  state.squared_norm = value[6];
  state.rows_seen = count(7);
  state.smallest_size = count(8);
  return count(0);
}

ShrinkDecision decompose(const at::Tensor& gram, const ShrinkRule& rule, at::ScalarType type, double error_bound,
                         double squared_norm) {
  const std::int64_t n = gram.size(0);
  const SymmetricEigen eigen = symmetric_eigen(gram);
  const double* lambda = eigen.values.const_data_ptr<double>();
  const double largest = n > 0 ? std::max(lambda[0], 0.0) : 0.0;

  // With the size given: how many rows stay, what is subtracted, and what that costs.
  std::int64_t kept = 0;
  double delta = 0.0, charge = 0.0;
  const auto shrink_by = [&](ShrinkRule by) {
    delta = by.lossless() || n < by.size ? 0.0 : std::max(lambda[by.size - 1], 0.0);
    const double floor = std::max(delta, by.drop_tolerance(type) * largest);
    for (kept = 0; kept < n && lambda[kept] > floor;) ++kept;
    if (by.lossless()) kept = std::min(kept, by.dimension);
    charge = by.lossless() ? 0.0 : std::max(delta, kept < n ? lambda[kept] : 0.0);
  };
  ShrinkRule by = rule;
  shrink_by(by);
  while (by.size < rule.max_size && error_bound + charge > rule.epsilon * squared_norm) {
    by.size = std::min(2 * by.size, rule.max_size);
    shrink_by(by);
  }

  ShrinkDecision decision;
  decision.size = by.size;
  decision.charge = charge;
  decision.eigenvalues = at::empty({kept}, at::kDouble);
  at::Tensor scale = at::empty({kept}, at::kDouble);
  // With alpha < 1 the highest directions lose nothing. What is lost of any direction is still at most delta, and of
  // the whole at least delta for each of the others, so that the bounds hold with alpha ell in the place of ell.
  const std::int64_t spared = by.size - by.shrunk_directions();
  const double root = std::sqrt(delta);
  for (std::int64_t j = 0; j < kept; ++j) {
    const double c = j < spared ? 0.0 : root;
    // On singular values, so that no digits are lost where lambda_j is close to delta.
    const double a = std::sqrt(lambda[j]);
    decision.eigenvalues.mutable_data_ptr<double>()[j] = (a - c) * (a + c);
    scale.mutable_data_ptr<double>()[j] = std::sqrt(a - c) * std::sqrt(a + c) / a;
  }
  decision.rotation = (eigen.vectors.narrow(1, 0, kept) * scale).t().contiguous();
  return decision;
}

at::Tensor merged_gram(const at::Tensor& low_eigenvalues, const at::Tensor& high_eigenvalues, const at::Tensor& cross) {
  const std::int64_t low = low_eigenvalues.size(0), high = high_eigenvalues.size(0);
  at::Tensor gram = at::zeros({low + high, low + high}, at::kDouble);
  gram.narrow(0, 0, low).narrow(1, 0, low).copy_(at::diag(low_eigenvalues));
  gram.narrow(0, low, high).narrow(1, low, high).copy_(at::diag(high_eigenvalues));
  gram.narrow(0, 0, low).narrow(1, low, high).copy_(cross);
  gram.narrow(0, low, high).narrow(1, 0, low).copy_(cross.t());
  return gram;
}

ShrinkRule merged_rule(const ShrinkRule& low, const ShrinkRule& high) {
  if (low.dimension != high.dimension) {
    throw InternalError(fmt::format("sketches of different dimension cannot be merged: {} and {} columns",
                                    low.dimension, high.dimension));
  }
  ShrinkRule rule = low.size >= high.size ? low : high;
  rule.max_size = std::max(low.max_size, high.max_size);
  return rule;
}

SketchState merged_numbers(const SketchState& low, const SketchState& high) {
  SketchState merged;
  merged.rule = merged_rule(low.rule, high.rule);
  merged.error_bound = low.error_bound + high.error_bound;
  merged.squared_norm = low.squared_norm + high.squared_norm;
  merged.rows_seen = low.rows_seen + high.rows_seen;
  merged.smallest_size = low.smallest_size == 0 || high.smallest_size == 0
                             ? std::max(low.smallest_size, high.smallest_size)
                             : std::min(low.smallest_size, high.smallest_size);
  return merged;
}

void charge_shrink(SketchState& state, const ShrinkDecision& decision) {
  state.rule.size = decision.size;
  state.error_bound += decision.charge;
  if (decision.charge > 0.0) {
    state.smallest_size = state.smallest_size == 0 ? decision.size : std::min(state.smallest_size, decision.size);
  }
}

SketchState merge_states(const SketchState& low, const SketchState& high) {
  SketchState merged = merged_numbers(low, high);
  if (low.row_count() == 0 || high.row_count() == 0) {  // the identity: nothing to decompose
    const SketchState& only = low.row_count() == 0 ? high : low;
    merged.rows = only.rows;
    merged.eigenvalues = only.eigenvalues;
    return merged;
  }
  const at::Tensor cross = cross_gram(low.rows, high.rows, merged.rule.lossless());
  const ShrinkDecision decision = decompose(merged_gram(low.eigenvalues, high.eigenvalues, cross), merged.rule,
                                            low.rows.scalar_type(), merged.error_bound, merged.squared_norm);
  charge_shrink(merged, decision);
  merged.eigenvalues = decision.eigenvalues;
  merged.rows = rotate_rows(decision.rotation, std::array{low.rows, high.rows});
  return merged;
}

}  // namespace sage
