#include "selection/method_passes.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/stopwatch.h"
#include "core/trace.h"
#include "selection/consensus.h"
#include "selection/selection_state.h"

namespace sage {
namespace {

SelectionRequest validation_of(const SelectionRequest& request) {
  SelectionRequest other = request;
  other.ids = request.validation_ids;
  other.labels = request.validation_labels;
  return other;
}

/// Shards of some batches each: most micro-batches are then whole.
ShardPlan plan_of(const SelectionRequest& request) {
  return plan_shards(static_cast<std::int64_t>(request.ids.size()),
                     std::max<std::int64_t>(request.config.batch_size, 1), request.config.shards,
                     request.communicator.size());
}

}  // namespace

MethodPasses::MethodPasses(const SelectionRequest& whole, const SelectionRequest& request)
    : whole_(whole), request_(request), plan_(plan_of(request_)), passes_(request_, plan_) {}

MethodPasses::MethodPasses(const SelectionRequest& request) : MethodPasses(request, request) {
  require(request.source->class_count() == request.class_count,
          "the source and the request differ in the number of classes");
  if (request.resume_from == nullptr) return;
  const std::string json = text_of_first(request.communicator, request.resume_from->json);
  progress_from_json(json, request, plan_);
}

MethodPasses MethodPasses::over_validation(const SelectionRequest& request) {
  return {request, validation_of(request)};
}

void MethodPasses::stop() {
  SelectionState state;
  const std::int64_t shards = plan_of(whole_).shard_count();
  SelectionProgress progress;
  progress.rows_done.assign(static_cast<std::size_t>(shards), 0);
  if (whole_.communicator.rank() == 0) state.json = progress_to_json(progress, whole_, shards);
  throw SelectionStopped(std::move(state));
}

void MethodPasses::put(std::vector<float>& mine, const MicroBatch& batch, const at::Tensor& scores) {
  const at::Tensor host = scores.to(at::kCPU, at::kFloat).contiguous();
  require(host.numel() == static_cast<std::int64_t>(batch.ids.size()), "one score for each example of a micro-batch");
  const float* score = host.const_data_ptr<float>();
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    const bool is_there = std::isfinite(score[i]);
    mine[static_cast<std::size_t>(batch.offset) + i] = is_there ? score[i] : kNoScore;
    if (!is_there) ++non_finite_;
  }
}

std::vector<float> MethodPasses::gather(const std::vector<float>& mine) {
  at::Tensor there = at::empty({static_cast<std::int64_t>(mine.size())}, at::kFloat);
  std::copy(mine.begin(), mine.end(), there.mutable_data_ptr<float>());
  Communicator& communicator = request_.communicator;
  const at::Tensor all = communicator.all_gather_rows(there.to(communicator.device())).cpu();
  require(all.size(0) == static_cast<std::int64_t>(request_.ids.size()), "scores of some examples are missing");
  return {all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.size(0)};
}

std::vector<float> MethodPasses::scores(const Score& score) {
  std::vector<float> mine(static_cast<std::size_t>(passes_.example_count()), kNoScore);
  const bool is_whole = passes_.factors(
      [&](const MicroBatch& batch, const ExampleFactors& factors) { put(mine, batch, score(batch, factors)); });
  if (!is_whole) stop();
  return gather(mine);
}

std::vector<float> MethodPasses::gradient_norms() {
  std::vector<float> mine(static_cast<std::size_t>(passes_.example_count()), kNoScore);
  // The projection is onto nothing; the source computes norms on the way.
  const at::Tensor nothing =
      at::zeros({1, request_.source->dimension()}, at::TensorOptions(request_.source->device()).dtype(at::kFloat));
  const bool is_whole = passes_.project(
      nothing,
      [&](const MicroBatch& batch, const at::Tensor&, const at::Tensor& squared_norms) {
        put(mine, batch, squared_norms.to(at::kDouble).sqrt());
      },
      {}, true);
  if (!is_whole) stop();
  return gather(mine);
}

FactorRows MethodPasses::factors(const FactorColumns& columns) {
  const std::int64_t count = passes_.example_count();
  const std::int64_t width = columns.width(request_.source->feature_count(), request_.class_count);
  FactorRows rows;
  rows.positions.resize(static_cast<std::size_t>(count));
  std::iota(rows.positions.begin(), rows.positions.end(), plan_.positions_of(request_.communicator.rank()).first);
  rows.values = at::empty({count, width}, at::kFloat);
  const bool is_whole = passes_.factors([&](const MicroBatch& batch, const ExampleFactors& factors) {
    const auto size = static_cast<std::int64_t>(batch.ids.size());
    const at::Tensor target = rows.values.narrow(0, batch.offset, size);
    std::int64_t column = 0;
    const auto keep = [&](bool wanted, const at::Tensor& part) {
      if (!wanted) return;
      target.narrow(1, column, part.size(1)).copy_(part);
      column += part.size(1);
    };
    keep(columns.features, factors.features);
    keep(columns.residuals, factors.residuals);
    keep(columns.probabilities, factors.probabilities);
    const at::Tensor bad = target.isfinite().all(1).logical_not();
    const std::int64_t bad_count = bad.sum().item<std::int64_t>();
    if (bad_count == 0) return;
    target.masked_fill_(bad.unsqueeze(1), 0.0);
    non_finite_ += bad_count;
  });
  if (!is_whole) stop();
  return rows;
}

void share_statistics(const SelectionRequest& request, std::int64_t non_finite, std::int64_t bytes_before,
                      SelectionResult& result) {
  at::Tensor sums = at::tensor({non_finite, request.communicator.traffic().bytes_sent - bytes_before}, at::kLong);
  all_reduce_sum_anywhere(request.communicator, sums);
  result.non_finite = sums[0].item<std::int64_t>();
  result.bytes_sent = sums[1].item<std::int64_t>();
  if (result.non_finite > 0) {
    result.warnings.push_back(fmt::format(
        "the network's answers to {} of {} examples are not finite: they count as the least wanted, or as zeros",
        result.non_finite, request.ids.size()));
  }
}

}  // namespace sage
