#include "selection/gradient_passes.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "core/linear_algebra.h"
#include "selection/selection_state.h"

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

/// Asks whether to stop: every rank the same number of times, in the same order.
class GradientPasses::StopPoints {
 public:
  StopPoints(const std::function<bool()>& stop_requested, std::int64_t most_micro_batches)
      : stop_requested_(stop_requested), left_(stop_requested ? most_micro_batches / kStopInterval : 0) {}

  /// After each micro-batch of this rank: whether to stop.
  bool micro_batch_done() { return left_ > 0 && ++micro_batches_ % kStopInterval == 0 && ask(); }
  /// After the last one: keeps up with ranks that have more.
  bool end() {
    while (left_ > 0) {
      if (ask()) return true;
    }
    return false;
  }

 private:
  bool ask() {
    --left_;
    return stop_requested_();
  }
  const std::function<bool()>& stop_requested_;
  std::int64_t left_, micro_batches_ = 0;
};

std::int64_t GradientPasses::example_count() const {
  const auto [first, last] = plan_.positions_of(request_.communicator.rank());
  return last - first;
}

std::vector<std::int64_t> GradientPasses::ids_at(std::span<const std::int64_t> offsets) const {
  const std::int64_t start = plan_.positions_of(request_.communicator.rank()).first;
  std::vector<std::int64_t> ids;
  ids.reserve(offsets.size());
  for (const std::int64_t offset : offsets) ids.push_back(request_.ids[static_cast<std::size_t>(start + offset)]);
  return ids;
}

bool GradientPasses::for_micro_batches(std::int64_t shard, std::int64_t done, StopPoints& stop_points,
                                       const std::function<void(const MicroBatch&)>& body) const {
  const auto [first, last] = plan_.positions(shard);
  const std::int64_t start = plan_.positions_of(request_.communicator.rank()).first;
  for (std::int64_t at = first + done; at < last; at += request_.config.batch_size) {
    const auto from = static_cast<std::size_t>(at);
    const auto count = static_cast<std::size_t>(std::min(request_.config.batch_size, last - at));
    body({request_.ids.subspan(from, count), request_.labels.subspan(from, count), at - start});
    if (stop_points.micro_batch_done()) return false;
  }
  return true;
}

std::int64_t GradientPasses::most_micro_batches(const std::vector<std::int64_t>& rows_done) const {
  std::int64_t most = 0;
  for (int rank = 0; rank < plan_.rank_count(); ++rank) {
    std::int64_t count = 0;
    const auto [first_shard, last_shard] = plan_.shards_of(rank);
    for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
      const std::int64_t done = rows_done[static_cast<std::size_t>(shard)];
      if (done == kShardEnded) continue;
      const auto [first, last] = plan_.positions(shard);
      count += (last - first - done + request_.config.batch_size - 1) / request_.config.batch_size;
    }
    most = std::max(most, count);
  }
  return most;
}

bool GradientPasses::sketch(GradientSketch& sketch, SketchProgress& progress,
                            const UseProbabilities& use_probabilities) const {
  const at::NoGradGuard no_grad;
  GradientSource& source = *request_.source;
  StopPoints stop_points(request_.stop_requested, most_micro_batches(progress.rows_done));
  const auto [first_shard, last_shard] = plan_.shards_of(request_.communicator.rank());
  for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
    std::int64_t& shard_done = progress.rows_done[static_cast<std::size_t>(shard)];
    if (shard_done == kShardEnded) continue;
    sketch.begin_shard(shard);
    const bool whole = for_micro_batches(shard, shard_done, stop_points, [&](const MicroBatch& batch) {
      const auto count = static_cast<std::int64_t>(batch.ids.size());
      at::Tensor rows = sketch.claim(count);
      // The gradients of a micro-batch are always computed together, so that their bits do not depend on the state of
      // the sketch: apart where it has less room, or is on another device than the model (selection.compression).
      const bool direct = rows.size(0) == count && rows.device() == source.device();
      at::Tensor gradients = direct ? rows : at::empty({count, rows.size(1)}, rows.options().device(source.device()));
      at::Tensor probabilities;
      if (use_probabilities) probabilities = at::empty({count, source.class_count()}, gradients.options());
      source.gradients(batch.ids, gradients, probabilities);
      if (use_probabilities) use_probabilities(probabilities, batch.labels);
      for (std::int64_t done = 0; done < count;) {
        if (done > 0) rows = sketch.claim(count - done);
        if (!direct) rows.copy_(gradients.narrow(0, done, rows.size(0)));
        const at::Tensor squared_norms = row_squared_norms(rows);
        progress.non_finite += drop_non_finite(rows, squared_norms);
        sketch.commit(rows.size(0), squared_norms);
        done += rows.size(0);
      }
      shard_done += count;
    });
    if (!whole) return false;
    sketch.end_shard(shard);
    shard_done = kShardEnded;
  }
  return !stop_points.end();
}

bool GradientPasses::factors(const UseFactors& use) const {
  const at::NoGradGuard no_grad;
  const std::vector<std::int64_t> nothing_done(static_cast<std::size_t>(plan_.shard_count()), 0);
  StopPoints stop_points(request_.stop_requested, most_micro_batches(nothing_done));
  const auto [first_shard, last_shard] = plan_.shards_of(request_.communicator.rank());
  for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
    const bool whole = for_micro_batches(
        shard, 0, stop_points, [&](const MicroBatch& batch) { use(batch, request_.source->factors(batch.ids)); });
    if (!whole) return false;
  }
  return !stop_points.end();
}

bool GradientPasses::project(const at::Tensor& sketch, const UseProjection& use,
                             const UseProbabilities& use_probabilities, bool with_norms) const {
  const at::NoGradGuard no_grad;
  GradientSource& source = *request_.source;
  const auto options = at::TensorOptions(source.device()).dtype(at::kFloat);
  const std::vector<std::int64_t> nothing_done(static_cast<std::size_t>(plan_.shard_count()), 0);
  StopPoints stop_points(request_.stop_requested, most_micro_batches(nothing_done));
  const auto [first_shard, last_shard] = plan_.shards_of(request_.communicator.rank());
  for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
    const bool whole = for_micro_batches(shard, 0, stop_points, [&](const MicroBatch& batch) {
      const auto count = static_cast<std::int64_t>(batch.ids.size());
      at::Tensor squared_norms, probabilities;
      if (with_norms) squared_norms = at::empty({count}, options);
      if (use_probabilities) probabilities = at::empty({count, source.class_count()}, options);
      const at::Tensor projected = source.project(batch.ids, sketch, squared_norms, probabilities);
      if (use) use(batch, projected, squared_norms);
      if (use_probabilities) use_probabilities(probabilities, batch.labels);
    });
    if (!whole) return false;
  }
  return !stop_points.end();
}

}  // namespace sage
