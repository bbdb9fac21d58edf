#include "models/layers.h"

#include <ATen/Parallel.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "models/oracle.h"

namespace sage {
namespace {

using testing::random_tensor;

/// The tensors of these tests are small, and test programs run side by side: threads would only wait for each other.
class OneThread : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const ::testing::Environment* const one_thread = ::testing::AddGlobalTestEnvironment(new OneThread);

TEST(Module, NamesEverythingInRegistrationOrderAndKeepsLeavesWhenMoved) {
  struct Pair : Module {
    Pair() {
      first = register_child("first", std::make_shared<Linear>(3, 2));
      second = register_child("second", std::make_shared<BatchNorm2d>(2));
    }
    std::shared_ptr<Linear> first;
    std::shared_ptr<BatchNorm2d> second;
    void add_twice() { register_child("first", std::make_shared<Linear>(1, 1)); }
    void add_dotted() { register_buffer("a.b", at::zeros({1})); }
  } pair;
  std::vector<std::string> names;
  for (const NamedTensor& parameter : pair.named_parameters()) names.push_back(parameter.name);
  EXPECT_EQ(names, (std::vector<std::string>{"first.weight", "first.bias", "second.weight", "second.bias"}));
  names.clear();
  for (const NamedTensor& buffer : pair.named_buffers()) names.push_back(buffer.name);
  EXPECT_EQ(names,
            (std::vector<std::string>{"second.running_mean", "second.running_var", "second.num_batches_tracked"}));
  EXPECT_EQ(pair.named_modules().size(), 3U);

  const at::Tensor held = pair.parameters()[0];
  pair.to(at::kCPU, at::kDouble, at::MemoryFormat::ChannelsLast);
  EXPECT_EQ(held.scalar_type(), at::kDouble);
  EXPECT_TRUE(held.is_leaf() && held.requires_grad());
  EXPECT_TRUE(held.is_same(pair.parameters()[0]));
  EXPECT_EQ(pair.named_buffers()[2].tensor.scalar_type(), at::kLong);
  pair.set_requires_grad(false);
  EXPECT_FALSE(held.requires_grad());
  pair.eval();
  EXPECT_FALSE(pair.second->is_training());
  EXPECT_THROW(pair.add_twice(), InternalError);
  EXPECT_THROW(pair.add_dotted(), InternalError);
}

TEST(BatchNorm2d, TrainModeEqualsLibTorchAndMovesTheRunningStatistics) {
  BatchNorm2d layer(5);
  testing::disturb(layer);
  const at::Tensor input = random_tensor({4, 5, 6, 7}, "input", 2.0, 0.5);
  at::Tensor mean = layer.named_buffers()[0].tensor.clone(), variance = layer.named_buffers()[1].tensor.clone();
  const at::Tensor expected =
      at::batch_norm(input, layer.weight().detach(), layer.bias().detach(), mean, variance, true, 0.1, 1e-5, true);
  EXPECT_TRUE(at::equal(layer.forward(input), expected));
  EXPECT_TRUE(at::equal(layer.named_buffers()[0].tensor, mean));
  EXPECT_TRUE(at::equal(layer.named_buffers()[1].tensor, variance));
  EXPECT_EQ(layer.named_buffers()[2].tensor.item<std::int64_t>(), 1);

  layer.eval();
  const at::Tensor by_hand = (input - mean.view({1, 5, 1, 1})) / (variance.view({1, 5, 1, 1}) + 1e-5).sqrt() *
                                 layer.weight().view({1, 5, 1, 1}) +
                             layer.bias().view({1, 5, 1, 1});
  EXPECT_TRUE(at::allclose(layer.forward(input), by_hand, 1e-5, 1e-5));
  EXPECT_EQ(layer.named_buffers()[2].tensor.item<std::int64_t>(), 1);
  EXPECT_THROW(
      {
        layer.train();
        layer.weight_gradients(input, input);
      },
      InternalError);
}

TEST(BatchNorm2d, OneValueLeavesTheRunningVariance) {
  BatchNorm2d layer(5);
  layer.forward(random_tensor({1, 5, 1, 1}, "image")).sum().backward();
  const auto buffers = layer.named_buffers();
  EXPECT_GT(buffers.at(0).tensor.abs().min().item<double>(), 0.0) << buffers[0].name;
  EXPECT_TRUE(at::equal(buffers.at(1).tensor, at::ones({5}))) << buffers[1].name;
}

TEST(BatchNorm2d, UsesTheGivenFunctionInTrainModeOnly) {
  int calls = 0;
  BatchNorm2d layer(2, [&calls](const at::Tensor& input, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const at::Tensor&, double momentum, double eps) {
    ++calls;
    EXPECT_EQ(momentum, 0.1);
    EXPECT_EQ(eps, 1e-5);
    return input * 3;
  });
  const at::Tensor input = random_tensor({2, 2, 3, 3}, "input");
  EXPECT_TRUE(at::equal(layer.forward(input), input * 3));
  layer.eval();
  layer.forward(input);
  EXPECT_EQ(calls, 1);
}

TEST(Initialisation, FollowsItsDistributionsAndTheNameOnly) {
  Conv2d fan_out(16, 64, {.kernel = 3});
  Conv2d fan_in(16, 64, {.kernel = 3, .bias = true, .init = ConvolutionInit::kaiming_fan_in});
  Linear linear(400, 30);
  fan_out.initialize(5, "a");
  fan_in.initialize(5, "a");
  linear.initialize(5, "b");
  const auto deviation = [](const at::Tensor& t) { return std::sqrt(t.square().mean().item<double>()); };
  EXPECT_NEAR(deviation(fan_out.weight()), std::sqrt(2.0 / (64 * 9)), 0.03 * std::sqrt(2.0 / (64 * 9)));
  EXPECT_NEAR(deviation(fan_in.weight()), std::sqrt(2.0 / (16 * 9)), 0.03 * std::sqrt(2.0 / (16 * 9)));
  EXPECT_LE(fan_in.bias().abs().max().item<double>(), 1.0 / 12);
  EXPECT_GT(fan_in.bias().abs().max().item<double>(), 0.9 / 12);
  EXPECT_LE(linear.weight().abs().max().item<double>(), 1.0 / 20);
  EXPECT_NEAR(deviation(linear.weight()), 1.0 / 20 / std::sqrt(3.0), 0.03 / 20);

  Linear same(400, 30), other_seed(400, 30), other_name(400, 30);
  same.initialize(5, "b");
  other_seed.initialize(6, "b");
  other_name.initialize(5, "c");
  EXPECT_TRUE(at::equal(same.weight(), linear.weight()));
  EXPECT_TRUE(at::equal(same.bias(), linear.bias()));
  EXPECT_FALSE(at::equal(other_seed.weight(), linear.weight()));
  EXPECT_FALSE(at::equal(other_name.weight(), linear.weight()));
}

TEST(Conv2d, RefusesGroupsThatDoNotDivideTheChannels) {
  EXPECT_THROW(Conv2d(6, 8, {.groups = 4}), InternalError);
  EXPECT_THROW(Conv2d(8, 6, {.groups = 4}), InternalError);
}

TEST(Conv2d, AnEvenWindowMayMissTheOnlyPixel) {
  Conv2d layer(3, 4, {.kernel = 2, .padding = 1, .dilation = 2, .bias = true});
  layer.initialize(1, "layer");
  const at::Tensor bias = layer.parameters()[1].detach();
  const at::Tensor output = layer.forward(random_tensor({2, 3, 1, 1}, "image")).detach();
  for (std::int64_t example = 0; example < 2; ++example) EXPECT_TRUE(at::equal(output[example].flatten(), bias));
}

/// Where no pixel meets the window, a weight has the gradient 0 in every type and layout (oneDNN leaves there what was
/// in memory, see Conv2d::compute).
TEST(Conv2d, WeightsThatMeetNoPixelHaveNoGradient) {
  for (const std::int64_t kernel : {3, 5}) {
    for (const std::int64_t stride : {1, 2}) {
      for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(std::to_string(kernel) + " " + std::to_string(stride) + " " + at::toString(type));
        const std::int64_t channels = 192;
        Conv2d layer(channels, channels,
                     {.kernel = kernel, .stride = stride, .padding = kernel / 2, .groups = channels});
        layer.initialize(1, "layer");
        layer.to(at::kCPU, type, at::MemoryFormat::ChannelsLast);
        const at::Tensor image = random_tensor({4, channels, 1, 1}, "image").to(type);
        const at::Tensor output = layer.forward(image), weights = layer.parameters()[0];
        const auto centre = [kernel](const at::Tensor& of) { return of.select(3, kernel / 2).select(2, kernel / 2); };
        EXPECT_TRUE(at::allclose(output.to(at::kDouble).squeeze(),
                                 (image.squeeze() * centre(weights).squeeze()).to(at::kDouble), 1e-2, 1e-3));
        // Freed memory that is not zero, for whoever takes it next without writing to it.
        for (int size = 0; size < 8; ++size) at::full({channels * kernel * kernel << size}, 1e30F, at::kFloat);
        output.sum().backward();
        const at::Tensor gradient = weights.grad().to(at::kDouble);
        const at::Tensor sum = image.to(at::kDouble).sum(0).view({channels, 1});
        EXPECT_TRUE(at::allclose(centre(gradient), sum, 2e-2, 2e-2));
        EXPECT_EQ(gradient.abs().sum().item<double>(), centre(gradient).abs().sum().item<double>());
      }
    }
  }
}

}  // namespace
}  // namespace sage
