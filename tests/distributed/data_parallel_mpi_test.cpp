// Data-parallel training on several ranks against one process with the whole batch.
#include "distributed/data_parallel.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "distributed/sync_batch_norm.h"
#include "support/mpi.h"

namespace sage {
namespace {

constexpr std::int64_t global_batch = 10, classes = 5;

at::Tensor wave(at::IntArrayRef shape, double phase, double scale, at::ScalarType type = at::kFloat) {
  std::int64_t count = 1;
  for (const auto n : shape) count *= n;
  return ((at::arange(count, at::kDouble) * 1.3 + phase).sin() * scale).view(shape).to(type);
}

/// Convolution, synchronised batch normalisation, linear layer.
class SmallNet {
 public:
  /// `phase` makes the initial weights; training with other phases on other ranks must not matter.
  SmallNet(double phase, at::ScalarType type, Communicator& communicator) : communicator_(communicator) {
    parameters_ = {wave({8, 3, 3, 3}, phase, 0.3, type), wave({8}, phase + 1, 0.2, type) + 1.0,
                   wave({8}, phase + 2, 0.2, type), wave({classes, 8}, phase + 3, 0.5, type),
                   wave({classes}, phase + 4, 0.1, type)};
    for (auto& parameter : parameters_) parameter.set_requires_grad(true);
    buffers_ = {wave({8}, phase, 0.1, type), at::ones({8}, type)};
  }

  at::Tensor forward(const at::Tensor& images) {
    at::Tensor x = at::conv2d(images, parameters_[0], {}, 1, 1);
    x = sync_batch_norm(x, parameters_[1], parameters_[2], buffers_[0], buffers_[1], 0.1, 1e-5, communicator_);
    // Smooth: where ReLU is at its kink, a rounding error decides the gradient, and 20 steps in float32 can then differ
    // by 1e-2 (in float64 they agree to 1e-9).
    return at::linear(at::silu(x).mean(at::IntArrayRef{2, 3}), parameters_[3], parameters_[4]);
  }

  std::vector<at::Tensor> parameters_, buffers_;

 private:
  Communicator& communicator_;
};

/// One step of stochastic gradient descent on this rank's part [start, start + count) of the global batch of `step`.
void train_step(SmallNet& net, DataParallel& parallel, int step, std::int64_t start, std::int64_t count, int ranks,
                double learning_rate) {
  const auto type = net.parameters_[0].scalar_type();
  const at::Tensor images = wave({global_batch, 3, 6, 6}, step, 1.0, type).narrow(0, start, count);
  const at::Tensor labels = (at::arange(global_batch, at::kLong) * 3 + step).remainder(classes).narrow(0, start, count);
  parallel.zero_gradients();
  parallel.prepare_forward();
  const at::Tensor loss = at::cross_entropy_loss(net.forward(images), labels, {}, at::Reduction::Sum) *
                          (static_cast<double>(ranks) / static_cast<double>(global_batch));
  parallel.prepare_backward(loss);
  loss.backward();
  parallel.finish_step();
  at::NoGradGuard no_grad;
  for (auto& parameter : net.parameters_) parameter.sub_(parameter.grad(), learning_rate);
}

double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

/// First example and count of a rank. Uneven; with three or four ranks one has none.
std::pair<std::int64_t, std::int64_t> slice_of(int rank, int ranks) {
  static const std::vector<std::vector<std::int64_t>> counts{{10}, {7, 3}, {6, 4, 0}, {5, 1, 0, 4}};
  const auto& row = counts.at(static_cast<std::size_t>(ranks - 1));
  std::int64_t start = 0;
  for (int r = 0; r < rank; ++r) start += row[static_cast<std::size_t>(r)];
  return {start, row[static_cast<std::size_t>(rank)]};
}

/// The bucket size in bytes (everything in one bucket, or several), and the dtype with the error that is allowed after
/// 20 steps, relative.
struct TrainingCase {
  const char* name;
  std::int64_t bucket_bytes;
  at::ScalarType type;
  double tolerance;
};

class DataParallelTraining : public testing::TestWithParam<TrainingCase> {};

TEST_P(DataParallelTraining, EqualsOneProcess) {
  const auto single = make_single_communicator(at::Device(at::kCPU));
  const TrainingCase& c = GetParam();
  SmallNet whole(0.0, c.type, *single), part(world().rank() * 10.0, c.type, world());  // rank 0 begins as `whole` does
  DataParallel alone(whole.parameters_, whole.buffers_, *single, c.bucket_bytes);
  DataParallel together(part.parameters_, part.buffers_, world(), c.bucket_bytes);
  for (std::size_t i = 0; i < whole.parameters_.size(); ++i) {
    EXPECT_TRUE(at::equal(part.parameters_[i], whole.parameters_[i])) << "initial parameter " << i;
  }
  const auto [start, count] = slice_of(world().rank(), world().size());
  for (int step = 0; step < 20; ++step) {
    train_step(whole, alone, step, 0, global_batch, 1, 0.1);
    train_step(part, together, step, start, count, world().size(), 0.1);
    if (step > 1) continue;  // the second step comes after the buckets were rebuilt
    for (std::size_t i = 0; i < whole.parameters_.size(); ++i) {
      EXPECT_LT(relative_difference(part.parameters_[i].grad(), whole.parameters_[i].grad()), c.tolerance / 5)
          << "gradient " << i << " of step " << step;
    }
  }
  for (std::size_t i = 0; i < whole.parameters_.size(); ++i) {
    EXPECT_LT(relative_difference(part.parameters_[i], whole.parameters_[i]), c.tolerance) << "parameter " << i;
    const at::Tensor mine = part.parameters_[i].detach().reshape({1, -1});
    const at::Tensor all = world().all_gather_rows(mine);
    for (int r = 0; r < world().size(); ++r) EXPECT_TRUE(at::equal(all.narrow(0, r, 1), mine)) << "rank " << r;
  }
  for (std::size_t i = 0; i < whole.buffers_.size(); ++i) {
    EXPECT_LT(relative_difference(part.buffers_[i], whole.buffers_[i]), c.tolerance) << "buffer " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, DataParallelTraining,
                         testing::Values(TrainingCase{"Float", 1 << 20, at::kFloat, 1e-4},
                                         TrainingCase{"FloatManyBuckets", 256, at::kFloat, 1e-4},
                                         TrainingCase{"Double", 1 << 20, at::kDouble, 1e-9},
                                         TrainingCase{"DoubleManyBuckets", 256, at::kDouble, 1e-9}),
                         [](const auto& instance) { return instance.param.name; });

TEST(DataParallel, GivesRankZerosStateToAll) {
  // Several dtypes and memory layouts, as a real module has them.
  const double own = world().rank();
  std::vector<at::Tensor> parameters{(wave({4, 3, 2, 2}, 0.0, 1.0) + own).contiguous(at::MemoryFormat::ChannelsLast)};
  parameters[0].set_requires_grad(true);
  std::vector<at::Tensor> buffers{at::full({3}, 7 + world().rank(), at::kLong), at::full({2}, own, at::kDouble)};
  DataParallel parallel(parameters, buffers, world(), 1 << 20);
  EXPECT_TRUE(at::equal(parameters[0], wave({4, 3, 2, 2}, 0.0, 1.0)));
  EXPECT_TRUE(at::equal(buffers[0], at::full({3}, 7, at::kLong)));
  EXPECT_TRUE(at::equal(buffers[1], at::zeros({2}, at::kDouble)));
}

TEST(DataParallel, ZeroesInPlace) {
  at::Tensor parameter = at::ones({3}).set_requires_grad(true);
  DataParallel parallel({parameter}, {}, world(), 1 << 20);
  for (int step = 0; step < 3; ++step) {
    parallel.zero_gradients();
    parallel.prepare_forward();
    const at::Tensor loss = (parameter * 2.0).sum();
    parallel.prepare_backward(loss);
    loss.backward();
    parallel.finish_step();
    EXPECT_TRUE(at::equal(parameter.grad(), at::full({3}, 2.0)));  // not accumulated over steps
  }
  const at::Tensor gradient = parameter.grad();
  parallel.zero_gradients();
  EXPECT_TRUE(gradient.is_alias_of(parameter.grad()));
  EXPECT_TRUE(at::equal(parameter.grad(), at::zeros({3})));
}

}  // namespace
}  // namespace sage
