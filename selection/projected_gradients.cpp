#include "selection/projected_gradients.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace sage {

bool ProjectedGradients::walk_first(const Use& use, const GradientPasses::UseProbabilities& use_probabilities,
                                    bool with_norms) {
  return passes_.project(
      sketch_,
      [&](const MicroBatch& batch, const at::Tensor& projected, const at::Tensor& squared_norms) {
        if (kept_type_ == at::ScalarType::Undefined) {
          use(batch, to_unit_length(projected), squared_norms);
          return;
        }
        if (!kept_.defined()) {
          kept_ = at::empty({passes_.example_count(), projected.size(1)}, projected.options().dtype(kept_type_));
        }
        // What is used is what is kept, so that all walks see the same directions.
        const at::Tensor kept = kept_.narrow(0, batch.offset, projected.size(0));
        kept.copy_(projected);
        batches_.push_back(batch);
        use(batch, to_unit_length(kept), squared_norms);
      },
      use_probabilities, with_norms);
}

bool ProjectedGradients::walk(const Use& use) {
  if (kept_type_ == at::ScalarType::Undefined) {
    return passes_.project(sketch_,
                           [&](const MicroBatch& batch, const at::Tensor& projected, const at::Tensor&) {
                             use(batch, to_unit_length(projected), {});
                           },
                           {});
  }
  for (const MicroBatch& batch : batches_) {
    use(batch, to_unit_length(kept_.narrow(0, batch.offset, static_cast<std::int64_t>(batch.ids.size()))), {});
  }
  return true;
}

at::Tensor ProjectedGradients::directions_at(std::span<const std::int64_t> offsets) {
  const auto count = static_cast<std::int64_t>(offsets.size());
  if (count == 0) return at::zeros({0, rows()}, at::kFloat);
  if (kept_.defined()) {
    const at::Tensor index = at::from_blob(const_cast<std::int64_t*>(offsets.data()), {count}, at::kLong);
    return to_unit_length(kept_.index_select(0, index.to(kept_.device()))).directions.cpu();
  }
  // In pieces of a micro-batch: no more at a time than in a pass.
  const std::vector<std::int64_t> ids = passes_.ids_at(offsets);
  std::vector<at::Tensor> parts;
  const auto step = static_cast<std::size_t>(passes_.batch_size());
  for (std::size_t first = 0; first < ids.size(); first += step) {
    const std::span piece(ids.data() + first, std::min(step, ids.size() - first));
    parts.push_back(to_unit_length(source_.project(piece, sketch_, {}, {})).directions.cpu());
  }
  return at::cat(parts);
}

}  // namespace sage
