#include "training/loss_scaler.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace sage {
namespace {

std::vector<at::Tensor> gradients_of(double value, double bad = 0.0) {
  std::vector<at::Tensor> gradients{at::full({4, 3}, value), at::full({5}, value)};
  if (bad != 0.0) gradients[1][2].fill_(bad);
  return gradients;
}

/// The rule of torch.amp.GradScaler one step at a time, in plain numbers.
TEST(LossScaler, FollowsTheRuleOfGradScaler) {
  LossScaler scaler(true, 1024.0, at::kCPU);
  double scale = 1024.0;
  int finite_in_a_row = 0;
  const double infinity = std::numeric_limits<double>::infinity();
  for (int step = 0; step < 4300; ++step) {
    const double bad = step == 7 || step == 8 ? infinity : step == 4100 ? std::nan("") : 0.0;
    auto gradients = gradients_of(3.0 * scale, bad);
    scaler.unscale(gradients);
    EXPECT_EQ(scaler.found_inf().item<float>(), bad == 0.0 ? 0.0F : 1.0F) << step;
    EXPECT_EQ(gradients[0][0][0].item<float>(), 3.0F) << step;
    scaler.update();
    if (bad != 0.0) {
      scale *= 0.5;
      finite_in_a_row = 0;
    } else if (++finite_in_a_row == 2000) {
      scale *= 2.0;
      finite_in_a_row = 0;
    }
    ASSERT_EQ(scaler.status()[1].item<double>(), scale) << step;
    ASSERT_EQ(scaler.state()[1].tensor.item<int>(), finite_in_a_row) << step;
  }
  EXPECT_EQ(scale, 1024.0 / 4 * 4 / 2) << "two halvings, two doublings (at 2008 and 4008), one halving";
}

TEST(LossScaler, TheSeedCarriesFactorScaleAndWhatIsNotFinite) {
  LossScaler scaler(true, 8.0, at::kCPU), plain(false, 8.0, at::kCPU);
  EXPECT_EQ(scaler.seed(at::full({}, 5.0, at::kFloat), 0.25).item<float>(), 2.0F);
  EXPECT_EQ(plain.seed(at::full({}, 5.0, at::kFloat), 0.25).item<float>(), 0.25F);
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_TRUE(std::isnan(plain.seed(at::full({}, bad, at::kFloat), 1.0).item<float>()));
  }
}

TEST(LossScaler, WithoutScalingItOnlyWatches) {
  LossScaler scaler(false, 8.0, at::kCPU);
  auto gradients = gradients_of(2.0, std::nan(""));
  scaler.unscale(gradients);
  scaler.update();
  EXPECT_EQ(scaler.found_inf().item<float>(), 1.0F);
  EXPECT_EQ(scaler.status()[1].item<float>(), 1.0F);
  EXPECT_EQ(gradients[0][0][0].item<float>(), 2.0F);
  gradients = gradients_of(2.0);
  scaler.unscale(gradients);
  EXPECT_EQ(scaler.found_inf().item<float>(), 0.0F) << "one bad step does not taint the next";
  EXPECT_TRUE(scaler.state().empty());
}

/// torch.nn.utils.clip_grad_norm_, one number at a time.
TEST(ClipGradients, ScalesTheNormOverAllGradients) {
  for (const double largest : {0.5, 3.0, 1e6}) {
    std::vector<at::Tensor> gradients{at::randn({7, 3}), at::randn({11}), at::randn({2, 2, 3, 3})};
    double squares = 0.0;
    std::vector<at::Tensor> before;
    for (const auto& gradient : gradients) {
      before.push_back(gradient.to(at::kDouble));
      const at::Tensor flat = before.back().flatten();
      for (std::int64_t i = 0; i < flat.numel(); ++i) squares += std::pow(flat[i].item<double>(), 2);
    }
    const double factor = std::min(1.0, largest / (std::sqrt(squares) + 1e-6));
    clip_gradients(gradients, largest);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      EXPECT_LT((gradients[i].to(at::kDouble) - before[i] * factor).abs().max().item<double>(), 1e-6) << largest;
      if (largest > 1e3) {
        EXPECT_TRUE(at::equal(gradients[i].to(at::kDouble), before[i])) << "small gradients stay as they are";
      }
    }
  }
}

}  // namespace
}  // namespace sage
