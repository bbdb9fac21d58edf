// Synchronised batch normalisation against one process that holds the concatenated batch.
#include "distributed/sync_batch_norm.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/mpi.h"

namespace sage {
namespace {

constexpr std::int64_t channels = 5;
constexpr double momentum = 0.1, eps = 1e-5;

struct Case {
  const char* name;
  std::vector<std::int64_t> examples;  // by rank
  bool image = false, affine = true, channels_last = false;
  at::ScalarType type = at::kDouble;
  double offset = 0.0;  // a mean far above the spread: sums of squares would lose all digits
};

std::ostream& operator<<(std::ostream& stream, const Case& c) { return stream << c.name; }

at::Tensor wave(at::IntArrayRef shape, double phase, at::ScalarType type) {
  std::int64_t count = 1;
  for (const auto n : shape) count *= n;
  return (at::arange(count, at::kDouble) * 1.7 + phase).sin().view(shape).to(type);
}

struct Result {
  at::Tensor output, by_input, by_weight, by_bias, running_mean, running_var;
};

template <class Normalise>
Result run(const Case& c, const at::Tensor& input, const at::Tensor& upstream, const Normalise& normalise) {
  at::Tensor x = input.clone().set_requires_grad(true), weight, bias;
  if (c.affine) {
    weight = (wave({channels}, 0.3, c.type) + 1.5).set_requires_grad(true);
    bias = wave({channels}, 0.9, c.type).set_requires_grad(true);
  }
  Result result;
  result.running_mean = wave({channels}, 0.1, c.type);
  result.running_var = wave({channels}, 0.2, c.type) + 2.0;
  result.output = normalise(x, weight, bias, result.running_mean, result.running_var);
  (result.output * upstream).sum().backward();
  result.output = result.output.detach();
  result.by_input = x.grad();
  if (c.affine) {
    result.by_weight = weight.grad();
    result.by_bias = bias.grad();
  }
  return result;
}

class SyncBatchNorm : public testing::TestWithParam<Case> {};

TEST_P(SyncBatchNorm, EqualsOneProcess) {
  const Case& c = GetParam();
  const int ranks = world().size();
  std::int64_t total = 0, start = 0, mine = 0;
  for (int r = 0; r < ranks; ++r) {
    const std::int64_t n = c.examples[static_cast<std::size_t>(r)];
    if (r == world().rank()) {
      start = total;
      mine = n;
    }
    total += n;
  }
  const std::vector<std::int64_t> shape =
      c.image ? std::vector<std::int64_t>{total, channels, 4, 3} : std::vector<std::int64_t>{total, channels};
  at::Tensor input = wave(shape, 0.0, c.type) * 3.0 + c.offset;
  if (c.channels_last) input = input.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor upstream = wave(shape, 5.0, c.type);

  const Result whole = run(c, input, upstream, [](auto& x, auto& weight, auto& bias, auto& mean, auto& var) {
    return at::batch_norm(x, weight, bias, mean, var, true, momentum, eps, false);
  });
  const Result part = run(c, input.narrow(0, start, mine), upstream.narrow(0, start, mine),
                          [](auto& x, auto& weight, auto& bias, auto& mean, auto& var) {
                            return sync_batch_norm(x, weight, bias, mean, var, momentum, eps, world());
                          });

  const double tolerance = c.type == at::kDouble ? (c.offset == 0.0 ? 1e-10 : 1e-6) : 2e-5;
  EXPECT_TRUE(at::allclose(part.output, whole.output.narrow(0, start, mine), tolerance, tolerance));
  EXPECT_TRUE(at::allclose(part.by_input, whole.by_input.narrow(0, start, mine), tolerance, tolerance));
  EXPECT_TRUE(at::allclose(part.running_mean, whole.running_mean, tolerance, tolerance));
  EXPECT_TRUE(at::allclose(part.running_var, whole.running_var, tolerance, tolerance));
  EXPECT_EQ(part.output.sizes(), input.narrow(0, start, mine).sizes());
  if (c.affine) {
    at::Tensor by_weight = part.by_weight.clone(), by_bias = part.by_bias.clone();
    world().all_reduce_sum(by_weight);  // each rank has its share
    world().all_reduce_sum(by_bias);
    EXPECT_TRUE(at::allclose(by_weight, whole.by_weight, tolerance, 10 * tolerance));
    EXPECT_TRUE(at::allclose(by_bias, whole.by_bias, tolerance, 10 * tolerance));
  }
  // The same bits on every rank.
  const at::Tensor all = world().all_gather_rows(part.running_var.view({1, -1}));
  for (int r = 0; r < ranks; ++r) EXPECT_TRUE(at::equal(all[r], part.running_var));
}

INSTANTIATE_TEST_SUITE_P(Cases, SyncBatchNorm,
                         testing::Values(Case{"EvenRows", {6, 6, 6, 6}}, Case{"EvenImages", {4, 4, 4, 4}, true},
                                         Case{"UnevenImages", {7, 2, 5, 1}, true}, Case{"UnevenRows", {3, 9, 2, 4}},
                                         Case{"LastRanksEmpty", {5, 0, 3, 0}, true},
                                         Case{"RowsOnOneRankOnly", {6, 0, 0, 0}},
                                         Case{"NotAffine", {4, 3, 2, 5}, true, false},
                                         Case{"ChannelsLast", {4, 3, 0, 5}, true, true, true},
                                         Case{"Float", {4, 3, 0, 5}, true, true, false, at::kFloat},
                                         Case{"FloatChannelsLast", {4, 3, 2, 5}, true, true, true, at::kFloat},
                                         Case{"FarFromZero", {4, 3, 2, 5}, true, true, false, at::kDouble, 1e6}),
                         [](const auto& instance) { return instance.param.name; });

/// What autocast hands over: 16-bit activations, float32 weights. The statistics keep their digits.
TEST(SyncBatchNorm, SixteenBitInputsHaveStatisticsInFloat) {
  const std::int64_t per_rank = 12;
  const std::vector<std::int64_t> shape{per_rank * world().size(), channels, 4, 4};
  // Far from zero: 16-bit statistics would be wrong in the third digit.
  const at::Tensor
      whole = (wave(shape, 0.0, at::kFloat) * 3.0 + 10.0).to(at::kBFloat16).contiguous(at::MemoryFormat::ChannelsLast),
      upstream = wave(shape, 5.0, at::kFloat).to(at::kBFloat16);
  const auto mine = [&](const at::Tensor& all) { return all.narrow(0, per_rank * world().rank(), per_rank); };
  at::Tensor x = mine(whole).clone().set_requires_grad(true), wide = whole.to(at::kDouble).set_requires_grad(true);
  const at::Tensor weight = wave({channels}, 0.3, at::kFloat) + 1.5, bias = wave({channels}, 0.9, at::kFloat);
  at::Tensor mean = at::zeros({channels}), variance = at::zeros({channels});
  const at::Tensor output = sync_batch_norm(x, weight, bias, mean, variance, 1.0, eps, world());
  EXPECT_EQ(output.scalar_type(), at::kBFloat16);
  (output * mine(upstream)).sum().backward();
  EXPECT_EQ(x.grad().scalar_type(), at::kBFloat16);

  at::Tensor exact_mean = at::zeros({channels}, at::kDouble), exact_variance = at::zeros({channels}, at::kDouble);
  const at::Tensor exact = at::batch_norm(wide, weight.to(at::kDouble), bias.to(at::kDouble), exact_mean,
                                          exact_variance, true, 1.0, eps, false);
  (exact * upstream.to(at::kDouble)).sum().backward();
  EXPECT_TRUE(at::allclose(mean.to(at::kDouble), exact_mean, 1e-5, 0));
  EXPECT_TRUE(at::allclose(variance.to(at::kDouble), exact_variance, 1e-4, 0));
  EXPECT_TRUE(at::allclose(output.detach().to(at::kDouble), mine(exact), 1e-2, 1e-2));
  EXPECT_TRUE(at::allclose(x.grad().to(at::kDouble), mine(wide.grad()), 2e-2, 2e-2));
}

TEST(SyncBatchNorm, EmptyFirstRankTakesPart) {
  if (world().size() == 1) return;
  // The case above with the empty rank in front; all others hold the same two rows.
  const at::Tensor rows = wave({2, channels}, 0.4, at::kDouble);
  const at::Tensor mine = (world().rank() == 0 ? rows.narrow(0, 0, 0) : rows).clone().set_requires_grad(true);
  at::Tensor mean = at::zeros({channels}, at::kDouble), var = at::zeros({channels}, at::kDouble);
  const at::Tensor output = sync_batch_norm(mine, {}, {}, mean, var, 1.0, eps, world());
  output.square().sum().backward();
  EXPECT_TRUE(at::allclose(mean, rows.mean(0), 1e-12, 1e-12));
  const double count = 2.0 * (world().size() - 1);
  const at::Tensor biased = (rows - rows.mean(0)).square().mean(0);
  EXPECT_TRUE(at::allclose(var, biased * count / (count - 1), 1e-12, 1e-12));
  EXPECT_EQ(mine.grad().size(0), mine.size(0));
}

/// LibTorch's own estimate divides by the count less one.
TEST(SyncBatchNorm, OneValueLeavesTheRunningVariance) {
  const bool is_mine = world().rank() == world().size() - 1;
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    const at::Tensor value = wave({1, channels, 1, 1}, 0.4, type);
    const at::Tensor mine = (is_mine ? value : value.narrow(0, 0, 0)).clone().set_requires_grad(true);
    const at::Tensor weight = wave({channels}, 0.3, type), bias = wave({channels}, 0.9, type);
    at::Tensor mean = at::zeros({channels}, type), variance = wave({channels}, 0.2, type) + 2.0;
    const at::Tensor before = variance.clone();
    const at::Tensor output = sync_batch_norm(mine, weight, bias, mean, variance, momentum, eps, world());
    output.sum().backward();
    EXPECT_TRUE(at::equal(variance, before));
    EXPECT_TRUE(at::allclose(mean, momentum * value.view({channels}), 1e-5, 0));
    // In float32 the CPU path takes value / sqrt(eps) from its like: 300 times the rounding of a value.
    EXPECT_TRUE(!is_mine || at::allclose(output.detach().view({channels}), bias, 0, type == at::kFloat ? 1e-3 : 1e-10));
    EXPECT_EQ(mine.grad().abs().sum().item<double>(), 0.0);
  }
}

TEST(SyncBatchNorm, NeedsOneAllReduceEachWay) {
  if (world().size() == 1) return;
  at::Tensor input = wave({4, channels}, 0.4, at::kDouble).set_requires_grad(true);
  world().reset_traffic();
  const at::Tensor output = sync_batch_norm(input, {}, {}, {}, {}, momentum, eps, world());
  EXPECT_EQ(world().traffic().calls, 1);
  output.square().sum().backward();
  EXPECT_EQ(world().traffic().calls, 2);
}

}  // namespace
}  // namespace sage
