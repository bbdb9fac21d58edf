#include "selection/gradient_passes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "core/linear_algebra.h"

namespace sage {
namespace {

/// Zeroes gradients that are not finite; returns how many. `squared_norms` follow.
std::int64_t drop_non_finite(at::Tensor rows, at::Tensor squared_norms) {
  std::int64_t dropped = 0;
  double* norm = squared_norms.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < rows.size(0); ++i) {
    if (std::isfinite(norm[i])) continue;
    rows[i].zero_();
    norm[i] = 0.0;
    ++dropped;
  }
  return dropped;
}

}  // namespace

std::int64_t GradientPasses::example_count() const {
  const auto [first, last] = plan_.positions_of(request_.communicator.rank());
  return last - first;
}

void GradientPasses::for_micro_batches(std::int64_t shard, const std::function<void(const MicroBatch&)>& body) const {
  const auto [first, last] = plan_.positions(shard);
  const std::int64_t start = plan_.positions_of(request_.communicator.rank()).first;
  for (std::int64_t at = first; at < last; at += request_.config.batch_size) {
    const auto from = static_cast<std::size_t>(at);
    const auto count = static_cast<std::size_t>(std::min(request_.config.batch_size, last - at));
    body({request_.ids.subspan(from, count), request_.labels.subspan(from, count), at - start});
  }
}

std::int64_t GradientPasses::sketch(GradientSketch& sketch, const UseProbabilities& use_probabilities) const {
  const at::NoGradGuard no_grad;
  GradientSource& source = *request_.source;
  std::int64_t non_finite = 0;
  const auto [first_shard, last_shard] = plan_.shards_of(request_.communicator.rank());
  for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
    for_micro_batches(shard, [&](const MicroBatch& batch) {
      for (std::size_t done = 0; done < batch.ids.size();) {
        at::Tensor rows = sketch.claim(static_cast<std::int64_t>(batch.ids.size() - done));
        const auto count = static_cast<std::size_t>(rows.size(0));
        // A sketch on another device than the model (selection.compression) gets its rows by way of the model's.
        const bool direct = rows.device() == source.device();
        at::Tensor gradients = direct ? rows : at::empty(rows.sizes(), rows.options().device(source.device()));
        at::Tensor probabilities;
        if (use_probabilities) {
          probabilities = at::empty({rows.size(0), source.class_count()}, gradients.options());
        }
        source.gradients(batch.ids.subspan(done, count), gradients, probabilities);
        if (!direct) rows.copy_(gradients);
        if (use_probabilities) use_probabilities(probabilities, batch.labels.subspan(done, count));
        const at::Tensor squared_norms = row_squared_norms(rows);
        non_finite += drop_non_finite(rows, squared_norms);
        sketch.commit(rows.size(0), squared_norms);
        done += count;
      }
    });
    sketch.end_shard(shard);
  }
  return non_finite;
}

void GradientPasses::project(const at::Tensor& sketch, const UseProjection& use,
                             const UseProbabilities& use_probabilities) const {
  const at::NoGradGuard no_grad;
  GradientSource& source = *request_.source;
  const auto options = at::TensorOptions(source.device()).dtype(at::kFloat);
  const auto [first_shard, last_shard] = plan_.shards_of(request_.communicator.rank());
  for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
    for_micro_batches(shard, [&](const MicroBatch& batch) {
      const auto count = static_cast<std::int64_t>(batch.ids.size());
      at::Tensor squared_norms = at::empty({count}, options);
      at::Tensor probabilities;
      if (use_probabilities) probabilities = at::empty({count, source.class_count()}, options);
      const at::Tensor projected = source.project(batch.ids, sketch, squared_norms, probabilities);
      if (use) use(batch, projected, squared_norms);
      if (use_probabilities) use_probabilities(probabilities, batch.labels);
    });
  }
}

}  // namespace sage
