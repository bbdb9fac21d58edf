// Losses against closed forms written out example by example, and their slopes against finite differences.
#include "training/losses.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/isfinite.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/error.h"
#include "core/random.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

const std::vector<std::int64_t> counts{500, 60, 7, 1, 123};

TrainingConfig config_of(const std::string& loss) {
  TrainingConfig config;
  config.loss = loss;
  return config;
}

/// float64 [9, 5] with labels of every class.
struct Case {
  at::Tensor logits = at::empty({9, 5}, at::kDouble);
  at::Tensor labels = at::tensor({0, 1, 2, 3, 4, 3, 2, 0, 1}, at::kLong);
  Case() {
    RandomStream stream(3, "losses");
    auto* values = logits.mutable_data_ptr<double>();
    for (int i = 0; i < 45; ++i) values[i] = 2.0 * stream.normal();
  }
  double logit(int i, int c) const { return logits[i][c].item<double>(); }
  int label(int i) const { return static_cast<int>(labels[i].item<std::int64_t>()); }
};

/// -log p_c of example i, with a margin taken off the logit of `at`.
double minus_log_p(const Case& given, int i, int c, int at = 0, double margin = 0.0) {
  double sum = 0.0;
  for (int k = 0; k < 5; ++k) sum += std::exp(given.logit(i, k) - (k == at ? margin : 0.0));
  return std::log(sum) - (given.logit(i, c) - (c == at ? margin : 0.0));
}

double weight_of(int c, double beta) {
  double sum = 0.0;
  for (const std::int64_t n : counts) sum += (1.0 - beta) / (1.0 - std::pow(beta, static_cast<double>(n)));
  return 5.0 * (1.0 - beta) / (1.0 - std::pow(beta, static_cast<double>(counts[static_cast<std::size_t>(c)]))) / sum;
}

void expect_losses(const TrainingConfig& config,
                   const std::function<double(const Case&, int example, int c)>& of_target) {
  const Case given;
  const at::Tensor losses = make_loss(config, counts, at::kCPU)->of_examples(given.logits, given.labels);
  for (int i = 0; i < 9; ++i) {
    double expected = (1.0 - config.label_smoothing) * of_target(given, i, given.label(i));
    for (int c = 0; c < 5; ++c) expected += config.label_smoothing / 5.0 * of_target(given, i, c);
    EXPECT_NEAR(losses[i].item<double>(), expected, 1e-12 * std::max(1.0, std::abs(expected)))
        << config.loss << " " << i << ", smoothing " << config.label_smoothing;
  }
}

TEST(Losses, AreTheirFormulas) {
  for (const double smoothing : {0.0, 0.1}) {
    TrainingConfig config = config_of("cross_entropy");
    config.label_smoothing = smoothing;
    expect_losses(config, [](const Case& given, int i, int c) { return minus_log_p(given, i, c); });
    config.loss = "ldam";
    config.ldam_margin = 0.7;
    expect_losses(config, [](const Case& given, int i, int c) {
      const int y = given.label(i);
      const double margin = 0.7 * std::pow(1.0 / static_cast<double>(counts[static_cast<std::size_t>(y)]), 0.25);
      return minus_log_p(given, i, c, y, margin);
    });
    for (const double gamma : {0.0, 0.5, 1.0, 2.0}) {
      config.focal_gamma = gamma;
      const auto focal = [gamma](const Case& given, int i, int c) {
        const double l = minus_log_p(given, i, c);
        return std::pow(1.0 - std::exp(-l), gamma) * l;
      };
      config.loss = "focal";
      expect_losses(config, focal);
      config.loss = "class_balanced_focal";
      for (const double beta : {0.0, 0.99, 0.9999}) {
        config.class_balance_beta = beta;
        expect_losses(config, [&](const Case& given, int i, int c) {
          return weight_of(given.label(i), beta) * focal(given, i, c);
        });
      }
    }
  }
}

TEST(Losses, SlopesAreThoseOfFiniteDifferences) {
  for (const char* name : {"cross_entropy", "focal", "class_balanced_focal", "ldam"}) {
    TrainingConfig config = config_of(name);
    config.label_smoothing = 0.05;
    config.focal_gamma = 1.5;
    config.class_balance_beta = 0.99;
    const auto loss = make_loss(config, counts, at::kCPU);
    Case given;
    const at::Tensor weights = at::tensor({1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 3.0, 1.0, 1.0}, at::kFloat);
    at::Tensor logits = given.logits.clone().set_requires_grad(true);
    loss->sum(logits, given.labels, weights).backward();
    for (int i = 0; i < 9; ++i) {
      for (int c = 0; c < 5; ++c) {
        const auto moved = [&](double by) {
          at::Tensor other = given.logits.clone();
          other[i][c].add_(by);
          return loss->sum(other, given.labels, weights).item<double>();
        };
        EXPECT_NEAR(logits.grad()[i][c].item<double>(), (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-8) << name;
      }
    }
  }
}

TEST(Losses, SumsAreThoseOfTheExamples) {
  const Case given;
  const at::Tensor weights = at::tensor({1.0, 0.5, 2.0, 1.0, 0.0, 1.0, 3.0, 1.0, 1.0}, at::kFloat);
  for (const char* name : {"cross_entropy", "focal", "class_balanced_focal", "ldam"}) {
    const auto loss = make_loss(config_of(name), counts, at::kCPU);
    const at::Tensor of_examples = loss->of_examples(given.logits, given.labels);
    EXPECT_NEAR(loss->sum(given.logits, given.labels, {}).item<double>(), of_examples.sum().item<double>(), 1e-10);
    EXPECT_NEAR(loss->sum(given.logits, given.labels, weights).item<double>(),
                (of_examples * weights).sum().item<double>(), 1e-10);
    // A rank may have nothing.
    at::Tensor none = at::empty({0, 5}, at::kFloat).set_requires_grad(true);
    const at::Tensor nothing = loss->sum(none, at::empty({0}, at::kLong), {});
    EXPECT_EQ(nothing.item<float>(), 0.0F) << name;
    nothing.backward();
  }
}

TEST(Losses, StayFiniteWhereAnExampleIsCertain) {
  for (const double gamma : {0.5, 1.0, 2.0}) {
    TrainingConfig config = config_of("focal");
    config.focal_gamma = gamma;
    at::Tensor logits = at::zeros({2, 5}, at::kFloat);
    logits[0][1].fill_(200.0);   // right beyond doubt
    logits[1][1].fill_(-200.0);  // wrong beyond doubt
    logits.set_requires_grad(true);
    const at::Tensor losses = make_loss(config, counts, at::kCPU)->of_examples(logits, at::tensor({1, 1}, at::kLong));
    losses.sum().backward();
    EXPECT_TRUE(losses.isfinite().all().item<bool>() && logits.grad().isfinite().all().item<bool>()) << gamma;
    EXPECT_EQ(losses[0].item<float>(), 0.0F);
    EXPECT_GT(losses[1].item<float>(), 100.0F);
  }
}

TEST(Losses, TheSmallestClassWeighsMostAndWeightsSumToTheClasses) {
  TrainingConfig config = config_of("class_balanced_focal");
  config.focal_gamma = 0.0;
  const at::Tensor logits = at::zeros({5, 5}, at::kDouble), labels = at::arange(5, at::kLong);
  const at::Tensor losses = make_loss(config, counts, at::kCPU)->of_examples(logits, labels);
  EXPECT_NEAR(losses.sum().item<double>(), 5.0 * std::log(5.0), 1e-12);
  EXPECT_EQ(losses.argmax().item<std::int64_t>(), 3);
  EXPECT_EQ(losses.argmin().item<std::int64_t>(), 0);
}

TEST(Losses, WhatCannotBeIsRefused) {
  const std::vector<std::int64_t> without_two{5, 3, 0, 1};
  for (const char* name : {"class_balanced_focal", "ldam"}) {
    const std::string message = message_of<ConfigError>([&] { make_loss(config_of(name), without_two, at::kCPU); });
    EXPECT_TRUE(contains(message, name) && contains(message, "class 2 has none")) << message;
  }
  make_loss(config_of("focal"), without_two, at::kCPU);
  EXPECT_TRUE(contains(message_of<ConfigError>([] { make_loss(config_of("hinge"), counts, at::kCPU); }), "ldam"));
}

}  // namespace
}  // namespace sage
