#include "selection/consensus.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"

namespace sage {

void all_reduce_sum_anywhere(Communicator& communicator, at::Tensor tensor) {
  at::Tensor there = tensor.to(communicator.device()).contiguous();
  communicator.all_reduce_sum(there);
  if (!there.is_same(tensor)) tensor.copy_(there);
}

UnitVectors to_unit_length(const at::Tensor& projected) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = projected.detach().to(at::kDouble);
  const at::Tensor norms = wide.square().sum(1).sqrt();
  const at::Tensor usable = at::isfinite(norms).logical_and(norms > 0.0);
  const at::Tensor mask = usable.unsqueeze(1);
  UnitVectors unit;
  unit.directions = at::where(mask, wide / at::where(mask, norms.unsqueeze(1), 1.0), 0.0).to(at::kFloat);
  const at::Tensor on_cpu = usable.cpu();
  const bool* is_usable = on_cpu.const_data_ptr<bool>();
  unit.degenerate.resize(static_cast<std::size_t>(on_cpu.size(0)));
  for (std::size_t i = 0; i < unit.degenerate.size(); ++i) unit.degenerate[i] = !is_usable[i];
  return unit;
}

Consensus::Consensus(std::int64_t class_count, std::int64_t rows, bool per_class)
    : per_class_(per_class),
      sums_(at::zeros({per_class ? class_count : 1, rows}, at::kDouble)),
      counts_(at::zeros({per_class ? class_count : 1}, at::kDouble)) {}

void Consensus::add(const UnitVectors& vectors, std::span<const std::int64_t> labels) {
  const auto n = static_cast<std::int64_t>(labels.size());
  require(vectors.directions.size(0) == n && vectors.directions.size(1) == sums_.size(1),
          "Consensus::add: one label per vector, one column per row of the sketch");
  // Membership [classes, n] times vectors: unlike an indexed add it is deterministic on every device.
  at::Tensor member = at::zeros({sums_.size(0), n}, at::kDouble);
  double* flag = member.mutable_data_ptr<double>();
  double* count = counts_.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at_i = static_cast<std::size_t>(i);
    if (vectors.degenerate[at_i]) continue;
    const std::int64_t c = per_class_ ? labels[at_i] : 0;
    flag[c * n + i] = 1.0;
    count[c] += 1.0;
  }
  const at::Tensor directions = vectors.directions.to(at::kDouble);
  sums_.add_(at::mm(member.to(directions.device()), directions).cpu());
}

void Consensus::reduce(Communicator& communicator) {
  all_reduce_sum_anywhere(communicator, sums_);
  all_reduce_sum_anywhere(communicator, counts_);
  const at::Tensor norms = sums_.square().sum(1).sqrt();
  strength_.clear();
  for (std::int64_t c = 0; c < sums_.size(0); ++c) {
    const double norm = norms[c].item<double>();
    strength_.push_back(norm / std::max(counts_[c].item<double>(), 1.0));
    if (norm > 0.0) sums_[c].div_(norm);
  }
}

std::vector<float> Consensus::agreement(const UnitVectors& vectors, std::span<const std::int64_t> labels,
                                        float lowest) const {
  const at::Tensor wide = vectors.directions.to(at::kDouble);
  at::Tensor directions = sums_;
  if (per_class_) {
    const at::Tensor index =
        at::from_blob(const_cast<std::int64_t*>(labels.data()), {static_cast<std::int64_t>(labels.size())}, at::kLong);
    directions = sums_.index_select(0, index);
  }
  const at::Tensor values = (wide * directions.to(wide.device())).sum(1).to(at::kFloat).cpu();
  std::vector<float> scores(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.size(0));
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (vectors.degenerate[i]) scores[i] = lowest;
  }
  return scores;
}

}  // namespace sage
