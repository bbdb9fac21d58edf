// The same subset at any number of ranks, from the same weights, on real images. Suites named Real* are registered
// only where the data is found.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/weights.h"
#include "selection/registry.h"
#include "support/mpi.h"
#include "training/learner.h"
#include "training/model_gradient_source.h"

namespace sage {
namespace {

struct Case {
  const char* dataset;
  const char* model;
  std::int64_t candidates;
  std::vector<std::string> overrides;
  double equal_ids = 0.995;  // at least
};

Config config_of(const Case& test) {
  std::vector<std::string> overrides = {std::string("data.name=") + test.dataset,
                                        std::string("model.name=") + test.model, "training.batch_size=64",
                                        "selection.fraction=0.1", "training.lr=0.05"};
  overrides.insert(overrides.end(), test.overrides.begin(), test.overrides.end());
  return parse_config("", "test", overrides);
}

/// A network that has learned a little, the same bits on every rank: trained alone, by each.
std::shared_ptr<Classifier> short_training(const Experiment& experiment, Communicator& single) {
  PhaseTimer timer;
  const auto network = make_network(experiment, experiment.config.model.name, 3, single);
  Learner learner(experiment, network, single, timer);
  Loader loader(*experiment.train_images, experiment.labels,
                EpochPlan(experiment.candidates, experiment.global_batch, 0, 1, 3, 0), {}, 0);
  for (int step = 0; step < 15; ++step) learner.step(*loader.next(), 0.05, "test");
  network->eval();
  return network;
}

SelectionResult choose(const Experiment& experiment, Classifier& network, Communicator& communicator) {
  ModelGradientSource source(network, *experiment.train_images, experiment.labels, experiment.config.selection, 0.0);
  std::vector<std::int64_t> labels;
  for (auto id : experiment.candidates) labels.push_back(experiment.labels[static_cast<std::size_t>(id)]);
  return select_examples({.config = experiment.config.selection,
                          .seed = 1,
                          .round = 1,
                          .ids = experiment.candidates,
                          .labels = labels,
                          .class_count = experiment.dataset.class_count,
                          .source = &source,
                          .communicator = communicator});
}

double share_of_equal_ids(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  std::vector<std::int64_t> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(std::max(a.size(), b.size()));
}

void expect_the_same_subset(const Case& test) {
  auto experiment = prepare_experiment(config_of(test), at::kCPU, world());
  experiment->candidates.resize(static_cast<std::size_t>(test.candidates));
  const auto single = make_single_communicator(at::kCPU);
  const auto network = short_training(*experiment, *single);
  const SelectionResult together = choose(*experiment, *network, world());
  const SelectionResult again = choose(*experiment, *network, world());
  EXPECT_EQ(together.kept, again.kept);
  EXPECT_EQ(together.scores, again.scores);
  // One rank computes the whole on its own; the others wait.
  if (world().rank() == 0) {
    const SelectionResult alone = choose(*experiment, *network, *single);
    EXPECT_EQ(alone.kept.size(), static_cast<std::size_t>(test.candidates / 10));
    EXPECT_GE(share_of_equal_ids(together.kept, alone.kept), test.equal_ids) << "at " << world().size() << " ranks";
  }
  world().barrier();
}

TEST(RealFashionMnist, ClassifierScopeSketchSelectsTheSameSubset) {
  expect_the_same_subset({"fashion_mnist", "cnn", 6000, {"selection.sketch.size=64"}});
}

TEST(RealFashionMnist, FilterSelectsTheSameSubset) {
  expect_the_same_subset(
      {"fashion_mnist", "cnn", 6000, {"selection.sketch.size=64", "selection.keep=filter", "data.corrupt_labels=0.2"}});
}

TEST(RealFashionMnist, ClustersSelectTheSameSubset) {
  expect_the_same_subset({"fashion_mnist", "cnn", 3000, {"selection.sketch.size=32", "selection.clusters=2"}});
}

/// A greedy cover goes on from each pick: one near-tie that rounding turns over moves some of those behind it.
TEST(RealFashionMnist, CoverageSelectsNearlyTheSameSubset) {
  expect_the_same_subset(
      {"fashion_mnist",
       "cnn",
       3000,
       {"selection.sketch.size=32", "selection.keep=coverage", "selection.coverage=facility_location"},
       0.95});
}

TEST(RealFashionMnist, OtherMethodsSelectTheSameSubset) {
  for (const char* method : {"gradmatch", "diversity", "herding", "craig", "submodular", "el2n"}) {
    for (const char* per_class : {"true", "false"}) {
      SCOPED_TRACE(method);
      expect_the_same_subset(
          {"fashion_mnist",
           "mlp",
           1500,
           {std::string("selection.method=") + method, std::string("selection.per_class=") + per_class}});
    }
  }
}

TEST(RealFashionMnist, FullScopeSelectsTheSameSubset) {
  expect_the_same_subset({"fashion_mnist", "cnn", 1200, {"selection.sketch.size=16", "selection.gradient.scope=full"}});
}

TEST(RealCifar10, ClassifierScopeOfResNet20SelectsTheSameSubset) {
  expect_the_same_subset({"cifar10", "resnet20", 2000, {"selection.sketch.size=32"}});
}

}  // namespace
}  // namespace sage
