// A training step recorded once and replayed: one launch in place of a thousand (CUDA graphs).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace sage {

/// How a device records work. Empty functions: it cannot.
struct GraphHooks {
  /// Records what `work` launches, without running it; what is returned keeps the recording.
  std::function<std::shared_ptr<void>(const std::function<void()>& work)> capture;
  std::function<void(void* recording)> replay;
};
/// Of a CUDA device.
GraphHooks cuda_graph_hooks(at::Device device);

/// Runs steps of one shape by replaying a recording, after `warm_up` steps that were launched one operation at a time
/// (libraries choose their algorithms and memory is taken in them). The work must do the same at each step, read
/// nothing but the tensors that it is given and what lives longer than this object, and never wait for the device.
class StepGraph {
 public:
  using Work = std::function<void(const at::Tensor& images, const at::Tensor& labels, const at::Tensor& rate)>;

  StepGraph(GraphHooks hooks, at::Device device, int warm_up = 3);

  /// One step. The largest batch that has come when the warm-up ends is what is recorded: the ragged last batch of an
  /// epoch may come first, where a run is resumed before it. A step of another shape of `images` or another
  /// `global_count` is launched anew.
  void run(const at::Tensor& images, const at::Tensor& labels, std::int64_t global_count, double rate,
           const Work& work);
  std::int64_t replays() const { return replays_; }

 private:
  GraphHooks hooks_;
  int warm_up_, warm_up_left_ = 0;
  std::vector<std::int64_t> shape_;
  std::int64_t global_count_ = 0, replays_ = 0;
  at::Tensor images_, labels_, rate_;  // what the recording reads
  std::shared_ptr<void> recording_;    // after them: it goes first
};

}  // namespace sage
