#include "core/frequent_directions.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/diag.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "core/linear_algebra.h"

namespace sage {
namespace {

// The known squared norms of kept rows drift in float32 (7e-6 of the largest after 387 shrinks): measured anew this
// often.
constexpr std::int64_t kWholeGramInterval = 16;

void check(const FrequentDirectionsOptions& options) {
  if (options.dimension < 1) throw ConfigError("a sketch needs rows of at least one column");
  if (options.size < 2) {
    throw ConfigError(fmt::format("selection.sketch.size must be at least 2 (it is {})", options.size));
  }
  if (!(options.alpha > 0.0 && options.alpha <= 1.0)) {
    throw ConfigError(
        fmt::format("selection.sketch.alpha must lie above 0 and at most at 1 (it is {})", options.alpha));
  }
  if (!(options.buffer >= 2.0 && options.buffer <= 4.0)) {
    throw ConfigError(fmt::format("selection.sketch.buffer must lie between 2 and 4 (it is {})", options.buffer));
  }
  if (options.max_size != 0 && options.max_size < options.size) {
    throw ConfigError(fmt::format("selection.sketch.max_size must be at least the size {} to start with (it is {})",
                                  options.size, options.max_size));
  }
  if (options.max_size != 0 && !(options.epsilon > 0.0)) {
    throw ConfigError(fmt::format("selection.sketch.epsilon must be above 0 (it is {})", options.epsilon));
  }
  require(options.type == at::kFloat || options.type == at::kDouble, "a sketch holds float32 or float64");
}

std::int64_t buffer_rows_for(std::int64_t size, double buffer) {
  return std::max(2 * size, static_cast<std::int64_t>(std::floor(buffer * static_cast<double>(size))));
}

/// Rows far apart in memory are read side by side, each a little at a time: with large pages the processor runs ahead
/// of them better (a twentieth of the time of a shrink).
at::Tensor make_buffer(std::int64_t rows, std::int64_t columns, const at::TensorOptions& options) {
  at::Tensor buffer = at::empty({rows, columns}, options);
  if (!buffer.device().is_cpu()) return buffer;
  constexpr std::uintptr_t kLargePage = std::uintptr_t{2} << 20;
  const auto begin = reinterpret_cast<std::uintptr_t>(buffer.mutable_data_ptr());
  const std::uintptr_t first = (begin + kLargePage - 1) / kLargePage * kLargePage;
  const std::uintptr_t last = (begin + buffer.nbytes()) / kLargePage * kLargePage;
  // Only advice: a system without large pages goes on with small ones.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  return buffer;
}

}  // namespace

FrequentDirections::FrequentDirections(const FrequentDirectionsOptions& options) : options_(options) {
  check(options);
  rule_ = {options.size, options.dimension, options.epsilon, options.max_size, options.alpha};
  buffer_ = make_buffer(buffer_rows_for(options.size, options.buffer), options.dimension,
                        at::TensorOptions(options.device).dtype(options.type));
  known_ = at::empty({0}, at::kDouble);
}

void FrequentDirections::reset() {
  // As if new, whatever was sketched before: a shard's sketch must not depend on the shards that a rank had before it.
  rule_.size = options_.size;
  buffer_ = buffer_.narrow(0, 0, buffer_rows_for(options_.size, options_.buffer));
  known_ = at::empty({0}, at::kDouble);
  filled_ = claimed_ = rows_seen_ = shrinks_ = smallest_size_ = 0;
  error_bound_ = squared_norm_ = 0.0;
}

at::Tensor FrequentDirections::claim(std::int64_t max_rows, std::int64_t at_least) {
  require(max_rows >= 1, "FrequentDirections::claim: at least one row must be asked for");
  // No more than a shrink can be sure to free.
  at_least = std::clamp<std::int64_t>(at_least, 1, std::min(max_rows, buffer_rows() - rule_.size + 1));
  if (free_rows() < at_least) shrink();
  claimed_ = std::min(max_rows, free_rows());
  return buffer_.narrow(0, filled_, claimed_);
}

void FrequentDirections::commit(std::int64_t rows, const at::Tensor& squared_norms) {
  require(rows >= 0 && rows <= claimed_, "FrequentDirections::commit: more rows than were claimed");
  const at::Tensor norms =
      squared_norms.defined() ? squared_norms : row_squared_norms(buffer_.narrow(0, filled_, rows));
  require(norms.size(0) == rows, "FrequentDirections::commit: one squared norm per row");
  double sum = squared_norm_;  // row by row, so that it does not depend on how rows were grouped
  for (std::int64_t i = 0; i < rows; ++i) {
    const double norm = norms.const_data_ptr<double>()[i];
    if (!std::isfinite(norm)) {
      throw TrainingError(
          fmt::format("row {} of the gradient stream is not finite: a sketch would be lost by it", rows_seen_ + i));
    }
    sum += norm;
  }
  claimed_ = 0;
  filled_ += rows;
  rows_seen_ += rows;
  squared_norm_ = sum;
}

void FrequentDirections::update(const at::Tensor& rows) {
  if (rows.dim() != 2 || rows.size(1) != dimension()) {
    throw InternalError(fmt::format("a sketch of dimension {} was given rows of {} columns", dimension(),
                                    rows.dim() == 2 ? rows.size(1) : -1));
  }
  const at::NoGradGuard no_grad;
  for (std::int64_t done = 0; done < rows.size(0);) {
    const at::Tensor free = claim(rows.size(0) - done);
    commit(free.size(0), copy_rows(rows.narrow(0, done, free.size(0)), free));
    done += free.size(0);
  }
}

at::Tensor FrequentDirections::pending_gram(bool whole) const {
  const std::int64_t known = whole ? 0 : known_.size(0);
  const at::Tensor used = buffer_.narrow(0, 0, filled_);
  const at::Tensor rest = lower_gram(used, known, rule_.lossless());
  if (known == 0) return rest;
  at::Tensor gram = at::zeros({filled_, filled_}, at::kDouble);
  gram.narrow(0, 0, known).narrow(1, 0, known).copy_(at::diag(known_));
  gram.narrow(0, known, filled_ - known).copy_(rest);
  return gram;
}

ShrinkDecision FrequentDirections::decide() const {
  const bool whole = (shrinks_ + 1) % kWholeGramInterval == 0;
  return decompose(pending_gram(whole), rule_, options_.type, error_bound_, squared_norm_);
}

void FrequentDirections::shrink() {
  if (filled_ == known_.size(0)) return;  // nothing has come in since the last time
  const ShrinkDecision decision = decide();
  if (decision.size > rule_.size) {  // `auto`: growing loses nothing and makes room as well
    grow(std::min(2 * rule_.size, rule_.max_size));
    return;
  }
  rotate_rows_in_place(decision.rotation, buffer_);
  known_ = decision.eigenvalues;
  filled_ = known_.size(0);
  error_bound_ += decision.charge;
  if (decision.charge > 0.0) smallest_size_ = smallest_size_ == 0 ? rule_.size : std::min(smallest_size_, rule_.size);
  ++shrinks_;
}

void FrequentDirections::grow(std::int64_t size) {
  rule_.size = size;
  const std::int64_t rows = buffer_rows_for(size, options_.buffer);
  if (rows <= buffer_.size(0)) return;
  at::Tensor larger = make_buffer(rows, dimension(), buffer_.options());
  larger.narrow(0, 0, filled_).copy_(buffer_.narrow(0, 0, filled_));
  buffer_ = std::move(larger);
}

SketchState FrequentDirections::state() const {
  SketchState state;
  state.rule = rule_;
  state.error_bound = error_bound_;
  state.squared_norm = squared_norm_;
  state.rows_seen = rows_seen_;
  state.smallest_size = smallest_size_;
  if (filled_ == known_.size(0)) {
    state.rows = buffer_.narrow(0, 0, filled_).clone();
    state.eigenvalues = known_.clone();
    return state;
  }
  const ShrinkDecision decision = decide();
  charge_shrink(state, decision);
  state.eigenvalues = decision.eigenvalues;
  state.rows = rotate_rows(decision.rotation, std::array{buffer_.narrow(0, 0, filled_)});
  return state;
}

double FrequentDirections::error_bound() const {
  return filled_ == known_.size(0) ? error_bound_ : error_bound_ + decide().charge;
}

double FrequentDirections::largest_eigenvalue() const {
  const at::Tensor eigenvalues = filled_ == known_.size(0) ? known_ : decide().eigenvalues;
  return eigenvalues.numel() == 0 ? 0.0 : eigenvalues[0].item<double>();
}

void FrequentDirections::merge(const FrequentDirections& other) {
  SketchState theirs = other.state();
  theirs.rows = theirs.rows.to(buffer_.device(), buffer_.scalar_type());
  load(merge_states(state(), theirs));
}

void FrequentDirections::load(const SketchState& state) {
  if (state.rule.size > rule_.size) grow(state.rule.size);
  rule_ = state.rule;
  known_ = state.eigenvalues;
  filled_ = known_.size(0);
  claimed_ = 0;
  buffer_.narrow(0, 0, filled_).copy_(state.rows);
  error_bound_ = state.error_bound;
  squared_norm_ = state.squared_norm;
  rows_seen_ = state.rows_seen;
  smallest_size_ = state.smallest_size;
}

std::string FrequentDirections::to_string() const {
  return fmt::format(
      "FrequentDirections(size {}, dimension {}, {} rows seen, {} of {} buffer rows in use, {} shrinks, "
      "error bound {:.4g}{})",
      size(), dimension(), rows_seen_, filled_, buffer_rows(), shrinks_, error_bound_,
      rule_.lossless() ? ", exact" : "");
}

}  // namespace sage
