// A look at a batch before a part of it is trained on, and what such a look moves.
#include <ATen/ops/_foreach_copy.h>

#include "core/error.h"
#include "data/sharding.h"
#include "training/learner.h"

namespace sage {

Scored Learner::score(const Batch& batch, const Scoring& how) {
  require(!how.record || (how.in_train_mode && config_.accumulate == 1), "this scoring pass cannot be recorded");
  Scored scored;
  if (how.in_train_mode && !buffers_.empty()) {
    const at::NoGradGuard no_gradients;
    scored.saved_buffers = flat_buffers();
  }
  const at::Tensor noise = how.in_train_mode ? noise_of(batch.ids, steps_) : at::Tensor();
  network_->train(how.in_train_mode);
  {
    const at::AutoGradMode gradients(how.record);
    const auto parts = static_cast<int>(config_.accumulate);
    std::vector<at::Tensor> logits;
    for (int part = 0; part < parts; ++part) {
      const Range range = balanced_range(batch.images.size(0), part, parts);
      logits.push_back(logits_of(batch.images.narrow(0, range.begin, range.size()),
                                 noise.defined() ? noise.narrow(0, range.begin, range.size()) : noise, how.precision));
    }
    const at::Tensor all = parts == 1 ? logits[0] : at::cat(logits);
    if (how.record) scored.recorded = all;
    scored.logits = all.detach();
  }
  network_->train();
  return scored;
}

void Learner::undo(const Scored& scored) {
  if (scored.saved_buffers.defined()) set_buffers(scored.saved_buffers);
}

at::Tensor Learner::flat_buffers() const {
  std::vector<at::Tensor> flat;
  for (const auto& buffer : buffers_) flat.push_back(buffer.reshape({-1}));
  return at::cat(flat);
}

void Learner::set_buffers(const at::Tensor& values) {
  const at::NoGradGuard no_gradients;
  std::vector<std::int64_t> sizes;
  for (const auto& buffer : buffers_) sizes.push_back(buffer.numel());
  at::_foreach_copy_(buffers_, values.split_with_sizes(sizes));
}

}  // namespace sage
