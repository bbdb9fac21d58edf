// Per-example gradients of all parameters of ResNet-20 (batch normalisation in eval mode), 64 images at once, projected
// on 64 rows layer by layer, against an ordinary forward and backward pass of the same images in the same mode; and as
// rows [64, D], as torch.func.vmap(grad) makes them (per_example_gradients_peer.py).
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "benchmarks/measure.h"
#include "models/per_example_gradients.h"
#include "models/registry.h"

namespace sage::benchmarks {
namespace {

void measure() {
  const std::int64_t batch = 64, rows = 64;
  const auto format = at::MemoryFormat::ChannelsLast;
  const auto model = make_model({.name = "resnet20"}, {3, 32, 32}, 10, 1);
  model->to(at::kCPU, at::kFloat, format);
  model->eval();
  const at::Tensor images = at::randn({batch, 3, 32, 32}, at::kFloat).contiguous(format);
  const at::Tensor labels = at::randint(10, {batch}, at::kLong);
  PerExampleGradients engine(*model, {"full"}, 0.0, batch);
  const at::Tensor sketch = at::randn({rows, engine.dimension()}, at::kFloat);
  const at::Tensor gradients = at::empty({batch, engine.dimension()}, at::kFloat);
  const std::vector<at::Tensor> parameters = model->parameters();

  MatrixProduct product;
  const std::vector<double> seconds = interleaved_medians(
      15, {[&] { product(); },
           [&] {
             for (const at::Tensor& parameter : parameters) parameter.mutable_grad() = at::Tensor();
             at::cross_entropy_loss(model->forward(images), labels).backward();
           },
           [&] { engine.project(images, labels, sketch); }, [&] { engine.write(images, labels, gradients); }});
  const double rate = product.multiply_adds() / seconds[0];
  const double projection = static_cast<double>(batch * rows * engine.dimension()) / rate;
  print_row({{"row", "per-example gradients, projected"},
             {"what", fmt::format("ResNet-20, {} images, D = {}, projected on {} rows, less the projection's "
                                  "multiply-adds at the rate of a large product",
                                  batch, engine.dimension(), rows)},
             {"ours_seconds", seconds[2] - projection},
             {"peer", "forward and backward of the batch"},
             {"peer_seconds", seconds[1]},
             {"target", "<= 1.2"},
             {"note", fmt::format("with the projection {:.1f} ms, of which its multiply-adds would take {:.1f} ms at "
                                  "{:.0f} G/s",
                                  1e3 * seconds[2], 1e3 * projection, 1e-9 * rate)}});
  print_row({{"row", "per-example gradients, as rows"},
             {"what", "the same gradients written as rows [64, D]"},
             {"ours_seconds", seconds[3]},
             {"note", fmt::format("{:.2f} of forward and backward of the batch", seconds[3] / seconds[1])}});
}

}  // namespace
}  // namespace sage::benchmarks

int main() { sage::benchmarks::measure(); }
