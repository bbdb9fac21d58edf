// The parts of crest against oracles: exact products, closed forms, and counts.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "distributed/communicator.h"
#include "selection/facility_location.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/crest/coresets.h"
#include "training/crest/crest_plan.h"
#include "training/crest/example_outputs.h"
#include "training/crest/hutchinson.h"
#include "training/crest/loss_watch.h"
#include "training/crest/quadratic_model.h"
#include "training/crest/random_sets.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

constexpr HessianProduct both_ways[] = {HessianProduct::double_backward, HessianProduct::forward_over_reverse};

std::unique_ptr<Experiment> experiment(const std::vector<std::string>& overrides, std::int64_t count = 120,
                                       std::int64_t classes = 4) {
  std::vector<std::string> all = {"selection.method=crest", "training.batch_size=16", "model.width=8",
                                  "selection.crest.random_set=0.2"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return testing::synthetic_experiment(count, classes, parse_config("", "test", all));
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// ------------------------------------------------------------------------------------------------ derivatives

TEST(Hutchinson, IsExactOnADiagonalQuadratic) {
  const at::Tensor a = at::tensor({0.5, 2.0, 3.0, 7.0, 0.25}, at::kDouble), b = at::arange(5, at::kDouble);
  at::Tensor x = at::tensor({1.0, -1.0, 2.0, 0.5, -3.0}, at::kDouble).requires_grad_();
  const std::vector<at::Tensor> parameters{x};
  for (const auto how : both_ways) {
    for (std::uint64_t draw = 0; draw < 8; ++draw) {
      at::Tensor gradient = at::zeros({5}, at::kDouble), diagonal = at::zeros({5}, at::kDouble);
      const double value =
          add_derivatives([&] { return (0.5 * a * x * x + b * x).sum(); }, parameters,
                          random_signs(RandomStream(1, "probe", draw), 5, at::kCPU), how, gradient, diagonal);
      const at::Tensor at_x = x.detach();
      EXPECT_EQ(value, (0.5 * a * at_x * at_x + b * at_x).sum().item<double>());
      EXPECT_LT(largest_difference(gradient, a * at_x + b), 1e-12);
      EXPECT_LT(largest_difference(diagonal, a), 1e-12);
    }
  }
}

TEST(Hutchinson, IsTheDiagonalOnAverage) {
  const at::Tensor root = at::randn({6, 6}, at::kDouble), matrix = root.mm(root.t());
  at::Tensor x = at::zeros({6}, at::kDouble).requires_grad_();
  const std::vector<at::Tensor> parameters{x};
  for (const auto how : both_ways) {
    at::Tensor gradient = at::zeros({6}, at::kDouble), sum = at::zeros({6}, at::kDouble);
    // All 64 vectors of signs: their mean is the expectation.
    for (int bits = 0; bits < 64; ++bits) {
      at::Tensor signs = at::zeros({6});
      for (int i = 0; i < 6; ++i) signs[i] = ((bits >> i) & 1) != 0 ? 1.0 : -1.0;
      add_derivatives([&] { return 0.5 * x.dot(matrix.mv(x)); }, parameters, signs, how, gradient, sum);
    }
    EXPECT_LT(largest_difference(sum / 64, matrix.diagonal()), 1e-12);
  }
}

TEST(Hutchinson, TheLossIsTheCrossEntropy) {
  const at::Tensor logits = 3 * at::randn({7, 4}, at::kDouble);
  const at::Tensor labels = at::arange(7, at::kLong).remainder(4);
  for (const double smoothing : {0.0, 0.1}) {
    const at::Tensor expected = at::cross_entropy_loss(logits, labels, {}, at::Reduction::None, -100, smoothing);
    EXPECT_LT(largest_difference(cross_entropy_by_operations(logits, labels, smoothing), expected), 1e-12);
  }
}

TEST(Hutchinson, IsTheDerivativeOfTheGradientOfEveryNetwork) {
  const auto what = experiment({"model.width=0"});  // residual networks have one width
  const auto single = make_single_communicator(at::kCPU);
  std::vector<std::int64_t> ids(6);
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  const at::Tensor images = what->train_images->images_of(ids).to(at::kDouble);
  const at::Tensor labels = to_device(std::span(what->labels).subspan(0, ids.size()), at::kCPU);
  for (const char* model : {"mlp", "cnn", "resnet20", "resnet18"}) {
    const auto network = make_network(*what, model, 3, *single);
    network->to(at::kCPU, at::kDouble, at::MemoryFormat::ChannelsLast);
    network->eval();
    const auto parameters = network->parameters();
    const auto loss = [&] { return cross_entropy_by_operations(network->forward(images), labels, 0.1).mean(); };
    const at::Tensor start = flattened_parameters(parameters);
    const std::int64_t dimension = start.numel();
    const at::Tensor signs = random_signs(RandomStream(2, "probe"), dimension, at::kCPU);
    const auto move_to = [&](const at::Tensor& weights) {
      const at::NoGradGuard no_gradients;
      std::int64_t offset = 0;
      for (const at::Tensor& parameter : parameters) {
        parameter.detach().copy_(weights.narrow(0, offset, parameter.numel()).view(parameter.sizes()));
        offset += parameter.numel();
      }
    };
    const auto zeros = [&] { return at::zeros({dimension}, at::kDouble); };
    const auto gradient_at = [&](const at::Tensor& weights) {
      move_to(weights);
      at::Tensor gradient = zeros();
      add_derivatives(loss, parameters, signs, HessianProduct::double_backward, gradient, zeros());
      return gradient;
    };
    // Along one line, where no ReLU turns over such a short way.
    const double step = 1e-9;
    const at::Tensor expected =
        signs * (gradient_at(start + step * signs) - gradient_at(start - step * signs)) / (2 * step);
    move_to(start);
    at::Tensor first;
    for (const auto how : both_ways) {
      at::Tensor gradient = zeros(), diagonal = zeros();
      add_derivatives(loss, parameters, signs, how, gradient, diagonal);
      EXPECT_LT((diagonal - expected).norm().item<double>(), 1e-3 * expected.norm().item<double>()) << model;
      if (first.defined()) {
        EXPECT_LT((diagonal - first).norm().item<double>(), 1e-10 * first.norm().item<double>()) << model;
      }
      first = diagonal;
    }
  }
}

TEST(RandomSigns, AreBalancedAndRepeat) {
  const at::Tensor signs = random_signs(RandomStream(1, "probe"), 100'001, at::kCPU);
  EXPECT_TRUE(signs.abs().eq(1).all().item<bool>());
  EXPECT_LT(std::abs(signs.sum().item<double>()), 5 * std::sqrt(100'001.0));
  EXPECT_TRUE(signs.equal(random_signs(RandomStream(1, "probe"), 100'001, at::kCPU)));
  EXPECT_FALSE(signs.equal(random_signs(RandomStream(1, "probe", 1), 100'001, at::kCPU)));
}

// -------------------------------------------------------------------------------------------- quadratic model

TEST(QuadraticModel, IsExactOnAPositiveDiagonalQuadratic) {
  const at::Tensor a = at::tensor({0.5, 2.0, 3.0}, at::kDouble), b = at::tensor({1.0, -1.0, 0.25}, at::kDouble);
  const auto loss = [&](const at::Tensor& x) { return (0.5 * a * x * x + b * x).sum().item<double>() + 4.0; };
  const at::Tensor x = at::tensor({1.0, -2.0, 0.5}, at::kDouble);
  QuadraticModel model(/*floor=*/0.0);
  model.fit({loss(x), a * x + b, a}, x);
  for (int i = 0; i < 10; ++i) {
    const at::Tensor moved = x + at::randn({3}, at::kDouble);
    // So the check never fires, however small tau is.
    EXPECT_NEAR(model.loss_at(moved), loss(moved), 1e-12 * std::abs(loss(moved)) + 1e-12);
  }
}

TEST(QuadraticModel, AveragesAreTheClosedForms) {
  QuadraticModel model;
  std::vector<at::Tensor> gradients, diagonals;
  for (std::int64_t fit = 1; fit <= 6; ++fit) {
    gradients.push_back(at::randn({4}, at::kDouble));
    diagonals.push_back(at::randn({4}, at::kDouble));
    model.fit({1.0, gradients.back(), diagonals.back()}, at::zeros({4}, at::kDouble));
    at::Tensor gradient = at::zeros({4}, at::kDouble), square = at::zeros({4}, at::kDouble);
    for (std::int64_t i = 1; i <= fit; ++i) {
      const auto at = static_cast<std::size_t>(i - 1);
      gradient += 0.1 * std::pow(0.9, fit - i) * gradients[at];
      square += 0.001 * std::pow(0.999, fit - i) * diagonals[at] * diagonals[at];
    }
    EXPECT_LT(largest_difference(model.gradient(), gradient / (1 - std::pow(0.9, fit))), 1e-12);
    EXPECT_LT(largest_difference(model.diagonal(), (square / (1 - std::pow(0.999, fit))).sqrt() + 1e-4), 1e-9);
  }
}

TEST(QuadraticModel, IntervalAndNumberFollowTheHessian) {
  EXPECT_EQ(adapt(8.0, 8.0, 1.0, 5.0, 100), (Adaptation{1, 5}));
  EXPECT_EQ(adapt(8.0, 3.0, 1.0, 5.0, 100), (Adaptation{3, 15}));  // ceil(8 / 3)
  EXPECT_EQ(adapt(8.0, 16.0, 10.0, 5.0, 100), (Adaptation{5, 25}));
  EXPECT_EQ(adapt(8.0, 1e-9, 1.0, 5.0, 40), (Adaptation{40, 40}));  // a short epoch is the most
  EXPECT_EQ(adapt(8.0, 1e9, 1.0, 0.1, 40), (Adaptation{1, 1}));
}

// ---------------------------------------------------------------------------------------------------- random sets

TEST(RandomSets, HoldTheQuotaOfEachClassAndKeepTheFloors) {
  const auto what = experiment({});
  RemainingExamples remaining(*what, 6, 70);
  std::set<std::vector<std::int64_t>> sets;
  for (std::uint64_t draw = 0; draw < 20; ++draw) {
    const auto set = remaining.draw(RandomStream(1, "set", draw));
    ASSERT_EQ(set.size(), 24U);
    EXPECT_EQ(std::set(set.begin(), set.end()).size(), 24U) << "without replacement";
    for (std::size_t i = 0; i < set.size(); ++i) {
      EXPECT_EQ(what->labels[static_cast<std::size_t>(set[i])], static_cast<std::int64_t>(i / 6));
    }
    sets.insert(set);
    EXPECT_EQ(set, remaining.draw(RandomStream(1, "set", draw)));
  }
  EXPECT_EQ(sets.size(), 20U);
  // All of class 0 and then all others: 6 of class 0 stay, and 70 in all.
  std::vector<std::int64_t> ids;
  for (const bool first : {true, false}) {
    for (const auto id : what->candidates) {
      if ((what->labels[static_cast<std::size_t>(id)] == 0) == first) ids.push_back(id);
    }
  }
  const auto out = remaining.exclude(ids);
  EXPECT_EQ(remaining.size(), 70);
  EXPECT_EQ(out.size(), 50U);
  EXPECT_EQ(remaining.excluded().size(), 50U);
  EXPECT_TRUE(std::is_sorted(remaining.excluded().begin(), remaining.excluded().end()));
  EXPECT_TRUE(remaining.exclude(ids).empty());
  for (std::uint64_t draw = 0; draw < 20; ++draw) {
    for (const auto id : remaining.draw(RandomStream(2, "set", draw))) {
      EXPECT_FALSE(std::binary_search(remaining.excluded().begin(), remaining.excluded().end(), id));
    }
  }
}

TEST(LossWatch, ALearnedExampleWasSeenAndNeverAboveTheLimit) {
  LossWatch watch(6);
  const auto observe = [&](std::vector<std::int64_t> ids, std::vector<float> losses, std::vector<std::uint8_t> right) {
    ExampleOutputs outputs;
    outputs.losses = std::move(losses);
    outputs.right = std::move(right);
    watch.observe(ids, outputs);
  };
  observe({0, 1, 2}, {0.05F, 0.1F, 0.05F}, {1, 1, 1});
  observe({0, 2, 3}, {0.09F, 0.2F, 0.0F}, {1, 0, 0});
  EXPECT_EQ(watch.learned(0.1F), (std::vector<std::int64_t>{3, 0, 1}));  // by their largest loss
  EXPECT_FALSE(watch.forgettability(std::vector<std::int64_t>{1, 3, 4}).has_value()) << "none was seen twice";
  EXPECT_EQ(watch.forgettability(std::vector<std::int64_t>{0, 2, 5}), 0.5);
  LossWatch copy(6);
  copy.load_state(watch.state());
  watch.start_anew();
  EXPECT_TRUE(watch.learned(0.1F).empty());
  EXPECT_EQ(copy.learned(0.1F).size(), 3U);
  observe({2}, {0.0F}, {0});
  EXPECT_EQ(watch.forgettability(std::vector<std::int64_t>{2}), 0.5) << "wrong after wrong is nothing forgotten";
  EXPECT_THROW(LossWatch(7).load_state(copy.state()), CheckpointError);
}

// -------------------------------------------------------------------------------------------------------- coresets

at::Tensor residuals_of_random_logits(std::int64_t classes, std::int64_t of_each, std::uint64_t seed) {
  RandomStream stream(seed, "residuals");
  at::Tensor logits = at::zeros({classes * of_each, classes});
  float* value = logits.data_ptr<float>();
  for (std::int64_t i = 0; i < logits.numel(); ++i) value[i] = static_cast<float>(2 * stream.normal());
  at::Tensor residuals = at::softmax(logits, 1);
  for (std::int64_t i = 0; i < residuals.size(0); ++i) residuals[i][i / of_each].sub_(1.0);
  return residuals;
}

TEST(Coresets, QuotasSumToTheBatchAndPreferNoClass) {
  for (const auto& [size, classes] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{128, 10}, {128, 200}, {7, 3}}) {
    const CoresetOptions options{.size = size, .of_each_class = size, .class_count = classes, .seed = 4};
    std::vector<std::int64_t> sums(static_cast<std::size_t>(classes), 0);
    for (std::int64_t set = 0; set < classes; ++set) {
      const auto quota = coreset_quota(options, set);
      EXPECT_EQ(std::accumulate(quota.begin(), quota.end(), std::int64_t{0}), size);
      const auto [low, high] = std::minmax_element(quota.begin(), quota.end());
      EXPECT_LE(*high - *low, 1);
      for (std::size_t c = 0; c < quota.size(); ++c) sums[c] += quota[c];
    }
    EXPECT_EQ(sums, std::vector<std::int64_t>(static_cast<std::size_t>(classes), size)) << "after a whole circle";
  }
}

TEST(Coresets, WeightsCountTheExamplesOfTheClassesRepresented) {
  for (const auto& [size, represented] : std::vector<std::pair<std::int64_t, std::int64_t>>{{13, 5}, {3, 3}, {60, 5}}) {
    const CoresetOptions options{.size = size, .of_each_class = 12, .class_count = 5, .seed = 4};
    const at::Tensor residuals = residuals_of_random_logits(5, 12, 1);
    const SetChoice choice = choose_of_set(residuals, options, 2);
    EXPECT_EQ(static_cast<std::int64_t>(choice.positions.size()), size);
    EXPECT_EQ(std::accumulate(choice.cluster.begin(), choice.cluster.end(), std::int64_t{0}), 12 * represented);
    if (size < 60) continue;
    // k = n: everything, and each for itself.
    EXPECT_EQ(choice.cluster, std::vector<std::int64_t>(60, 1));
  }
}

TEST(Coresets, ChooseInEachClassByFacilityLocation) {
  const CoresetOptions options{.size = 10, .of_each_class = 12, .class_count = 5, .seed = 4};
  const at::Tensor residuals = residuals_of_random_logits(5, 12, 7);
  const SetChoice choice = choose_of_set(residuals, options, 0);
  for (std::int64_t c = 0; c < 5; ++c) {
    const auto expected = lazy_greedy(similarity_of(residuals.narrow(0, 12 * c, 12)), 2);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(choice.positions[static_cast<std::size_t>(2 * c) + i], 12 * c + expected.chosen[i]);
      EXPECT_EQ(choice.cluster[static_cast<std::size_t>(2 * c) + i], expected.cluster[i]);
    }
  }
}

TEST(Coresets, AreOneMiniBatchEachOfMeanWeightOne) {
  const auto single = make_single_communicator(at::kCPU);
  const std::int64_t classes = 3, of_each = 8;
  std::vector<std::vector<std::int64_t>> sets(4);
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; id < classes * of_each * 4; ++id) {
    ids.push_back(id);
    sets[static_cast<std::size_t>(id / (classes * of_each))].push_back(id);
  }
  at::Tensor residuals = residuals_of_random_logits(classes, of_each, 3);
  residuals = at::cat({residuals, residuals.mul(0.9), residuals.mul(0.8), residuals.mul(0.7)});
  for (const bool stochastic : {false, true}) {
    CoresetOptions options{
        .size = 7, .of_each_class = of_each, .class_count = classes, .seed = 4, .is_stochastic = stochastic};
    const auto coresets = choose_coresets(sets, 5, ids, residuals, options, *single);
    ASSERT_EQ(coresets.size(), 4U);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(coresets[i].ids.size(), 7U);
      for (const auto id : coresets[i].ids) EXPECT_EQ(id / 24, static_cast<std::int64_t>(i)) << "of its own set";
      EXPECT_NEAR(std::accumulate(coresets[i].weights.begin(), coresets[i].weights.end(), 0.0F), 7.0F, 1e-5F);
    }
    EXPECT_EQ(coresets, choose_coresets(sets, 5, ids, residuals, options, *single));
    // As released: ceil(7 / 3) = 3 of each class of each set, shuffled together, in whole batches of 7.
    options.as_released = true;
    const auto released = choose_coresets(sets, 5, ids, residuals, options, *single);
    EXPECT_EQ(released.size(), 36U / 7U);
    std::set<std::int64_t> of_first;
    for (const auto id : released[0].ids) of_first.insert(id / 24);
    EXPECT_GT(of_first.size(), 1U);
  }
}

TEST(Coresets, AsReleasedTiesGoToTheLargerPosition) {
  const at::Tensor equal = at::full({6, 2}, 0.5);
  CoresetOptions options{.size = 4, .of_each_class = 3, .class_count = 2};
  EXPECT_EQ(choose_of_set(equal, options, 0).positions, (std::vector<std::int64_t>{0, 1, 3, 4}));
  options.as_released = true;
  EXPECT_EQ(choose_of_set(equal, options, 0).positions, (std::vector<std::int64_t>{2, 1, 5, 4}));
}

// ------------------------------------------------------------------------------------------------- forward passes

/// Counts the examples that pass through a layer.
class RowCount : public LayerObserver {
 public:
  at::Tensor observe(const Layer&, const at::Tensor& input, at::Tensor output) override {
    rows += input.size(0);
    return output;
  }
  std::int64_t rows = 0;
};

TEST(ExampleOutputs, AreOfTheAskedExamplesAndNoOthers) {
  const auto what = experiment({});
  const auto single = make_single_communicator(at::kCPU);
  const auto network = make_network(*what, "cnn", 3, *single);
  const std::vector<std::int64_t> ids{7, 3, 99, 50, 51};
  RowCount count;
  network->head().set_observer(&count);
  const auto outputs = forward_examples(*network, *what->train_images, what->labels, ids, 2, 0.1, *single);
  network->head().set_observer(nullptr);
  EXPECT_EQ(count.rows, 5) << "only what was asked for goes through the network";
  EXPECT_TRUE(network->is_training());
  network->eval();
  double sum = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::vector<std::int64_t> one{ids[i]};
    const at::Tensor logits = network->forward(what->train_images->images_of(one));
    const std::int64_t label = what->labels[static_cast<std::size_t>(ids[i])];
    at::Tensor expected = at::softmax(logits, 1)[0];
    EXPECT_NEAR(outputs.losses[i], -std::log(expected[label].item<double>()), 1e-5);
    EXPECT_EQ(outputs.right[i], logits.argmax(1).item<std::int64_t>() == label);
    const at::Tensor log_p = expected.log();
    const double smoothed = -0.9 * log_p[label].item<double>() - 0.1 * log_p.mean().item<double>();
    sum += smoothed;
    squares += smoothed * smoothed;
    expected[label].sub_(1.0);
    EXPECT_LT(largest_difference(outputs.residuals[static_cast<std::int64_t>(i)], expected), 1e-6);
  }
  EXPECT_NEAR(outputs.mean_loss, sum / 5, 1e-6);
  EXPECT_NEAR(outputs.loss_error, std::sqrt((squares - sum * sum / 5) / 4 / 5), 1e-5);
}

// ------------------------------------------------------------------------------------------------------- the plan

TEST(CrestPlan, FollowsFromTheConfiguration) {
  const auto what = experiment({"selection.crest.train_fraction=0.29"}, 200);
  const CrestPlan plan = plan_crest(*what);
  EXPECT_EQ(plan.steps_per_epoch, 4);  // of 58 examples in batches of 16
  EXPECT_EQ(plan.set_size, 40);
  EXPECT_EQ(plan.of_each_class, 10);
  EXPECT_EQ(plan.coreset_size, 16);
  EXPECT_EQ(plan.least_remaining, 160);
  EXPECT_EQ(plan.first_coresets, 4) << "5, but no more than steps of a short epoch";
  // A batch of more examples than a set: the whole set is the coreset.
  EXPECT_EQ(plan_crest(*experiment({"training.batch_size=100"})).coreset_size, 24);
}

TEST(CrestPlan, SaysWhatToSet) {
  const auto error = [](const std::vector<std::string>& overrides, std::int64_t classes = 4) {
    return message_of<ConfigError>([&] { plan_crest(*experiment(overrides, 120, classes)); });
  };
  const std::string quota = error({"selection.crest.random_set=1"});
  EXPECT_TRUE(contains(quota, "a random set of crest takes 30 of each class"));
  EXPECT_TRUE(contains(quota, "set selection.crest.random_set to at most 0."));
  // What it says works, and a little more does not.
  const std::string value = quota.substr(quota.rfind(' ') + 1);
  EXPECT_EQ(error({"selection.crest.random_set=" + value}), "");
  EXPECT_NE(error({"selection.crest.random_set=" + std::to_string(std::stod(value) + 0.05)}), "");
  EXPECT_TRUE(contains(error({}, 500), "crest needs examples of every class"));
  EXPECT_TRUE(contains(error({"selection.crest.train_fraction=0.001"}),
                       "selection.crest.train_fraction = 0.001 of 120 examples is a budget of no step: it must be at "
                       "least 0.0083"));
  EXPECT_TRUE(contains(error({"training.loss=focal"}), "set training.loss=cross_entropy"));
  EXPECT_TRUE(contains(error({"dropout.mode=dbpd"}), "dropout.mode is dbpd"));
  EXPECT_TRUE(contains(error({"training.cuda_graph=true"}), "training.cuda_graph"));
  for (const char* bad : {"check_threshold=0", "check_threshold=-1", "interval_factor=0", "min_remaining=1.1",
                          "train_fraction=0", "drop_interval=0", "random_set=1.5", "subset_factor=0"}) {
    EXPECT_TRUE(contains(error({std::string("selection.crest.") + bad}), "selection.crest.")) << bad;
  }
}

}  // namespace
}  // namespace sage
