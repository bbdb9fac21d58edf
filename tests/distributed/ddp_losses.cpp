// Prints the losses of 20 data-parallel steps of a small network. ddp_gloo_reference.py does the same with PyTorch's
// DistributedDataParallel on gloo; weights and data come from the same formulas. Run under mpirun with 2 ranks.
#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros_like.h>

#include <cstdio>
#include <vector>

#include "distributed/data_parallel.h"
#include "distributed/process_group_communicator.h"
#include "distributed/run_guarded.h"

namespace {

using namespace sage;

at::Tensor wave(at::IntArrayRef shape, double phase, double scale) {
  std::int64_t count = 1;
  for (const auto n : shape) count *= n;
  return ((at::arange(count, at::kDouble) * 0.7 + phase).sin() * scale).view(shape).to(at::kFloat);
}

int print_losses(Runtime& runtime) {
  constexpr std::int64_t batch = 8, classes = 4;
  constexpr double learning_rate = 0.2, momentum = 0.9;
  const auto communicator = make_communicator(runtime, at::Device(at::kCPU));
  std::vector<at::Tensor> parameters{wave({8, 3, 3, 3}, 0.1, 0.3),  wave({8}, 0.2, 0.1),
                                     wave({16, 8, 3, 3}, 0.3, 0.2), wave({16}, 0.4, 0.1),
                                     wave({classes, 16}, 0.5, 0.4), wave({classes}, 0.6, 0.1)};
  std::vector<at::Tensor> velocities;
  for (auto& parameter : parameters) {
    parameter.set_requires_grad(true);
    velocities.push_back(at::zeros_like(parameter));
  }
  DataParallel parallel(parameters, {}, *communicator, 4096);
  for (int step = 0; step < 20; ++step) {
    const std::int64_t first = (step * runtime.size() + runtime.rank()) * batch;  // number of this rank's first example
    const at::Tensor images = wave({batch, 3, 8, 8}, static_cast<double>(first), 1.0);
    const at::Tensor labels = (at::arange(batch, at::kLong) + first).remainder(classes);
    parallel.zero_gradients();
    parallel.prepare_forward();
    at::Tensor x = at::relu(at::conv2d(images, parameters[0], parameters[1], 1, 1));
    x = at::relu(at::conv2d(x, parameters[2], parameters[3], 2, 1));
    x = at::linear(x.mean(at::IntArrayRef{2, 3}), parameters[4], parameters[5]);
    const at::Tensor loss = at::cross_entropy_loss(x, labels);
    parallel.prepare_backward(loss);
    loss.backward();
    parallel.finish_step();
    {
      at::NoGradGuard no_grad;
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        velocities[i].mul_(momentum).add_(parameters[i].grad());
        parameters[i].sub_(velocities[i], learning_rate);
      }
    }
    at::Tensor mean = loss.detach().clone();
    communicator->all_reduce_sum(mean);
    if (runtime.rank() == 0) std::printf("%.9f\n", mean.item<double>() / runtime.size());
  }
  return 0;
}

}  // namespace

int main() {
  sage::Runtime runtime;
  return sage::run_guarded(runtime, [&] { return print_losses(runtime); });
}
