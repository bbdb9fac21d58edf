#include "training/step_graph.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "distributed/cuda_part.h"

namespace sage {

GraphHooks cuda_graph_hooks(at::Device device) {
  return {.capture = [device](const std::function<void()>& work) { return cuda::capture_graph(device.index(), work); },
          .replay = [](void* recording) { cuda::replay_graph(recording); }};
}

StepGraph::StepGraph(GraphHooks hooks, at::Device device, int warm_up)
    : hooks_(std::move(hooks)), warm_up_(warm_up), rate_(at::zeros({1}, at::TensorOptions(at::kFloat).device(device))) {
  require(hooks_.capture && hooks_.replay, "this device cannot record its work");
}

void StepGraph::run(const at::Tensor& images, const at::Tensor& labels, std::int64_t global_count, double rate,
                    const Work& work) {
  rate_.fill_(rate);
  if (shape_.empty() || (!recording_ && images.size(0) > shape_.front())) {
    shape_ = images.sizes().vec();
    global_count_ = global_count;
    warm_up_left_ = warm_up_;
  }
  const bool recorded_shape = images.sizes() == at::IntArrayRef(shape_) && global_count == global_count_;
  if (!recorded_shape || warm_up_left_ > 0) {
    if (recorded_shape) --warm_up_left_;
    work(images, labels, rate_);
    return;
  }
  if (!recording_) {
    images_ = at::empty_like(images);
    labels_ = at::empty_like(labels);
  }
  images_.copy_(images);
  labels_.copy_(labels);
  if (!recording_) recording_ = hooks_.capture([&] { work(images_, labels_, rate_); });
  hooks_.replay(recording_.get());
  ++replays_;
}

}  // namespace sage
