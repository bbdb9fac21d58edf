// The parts of a training step that need no second rank: precision, recording, and what is refused.
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/autocast.h"
#include "training/learner.h"
#include "training/step_graph.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

/// The types of all layers' outputs.
class TypeObserver : public LayerObserver {
 public:
  at::Tensor observe(const Layer&, const at::Tensor&, at::Tensor output) override {
    types.push_back(output.scalar_type());
    return output;
  }
  std::vector<at::ScalarType> types;
};

TEST(Autocast, LayersRunInSixteenBitsWithinItsScopeAlone) {
  const auto experiment = testing::synthetic_experiment(8, 4, {});
  const auto single = make_single_communicator(at::kCPU);
  const auto network = make_network(*experiment, "resnet20", 5, *single);
  const std::vector<std::int64_t> ids{0, 1, 2, 3};
  const at::Tensor images = experiment->train_images->images_of(ids);
  const auto types_of = [&](Precision precision) {
    TypeObserver observer;
    for (const auto& [name, layer] : named_layers(*network)) layer->set_observer(&observer);
    {
      const Autocast autocast(precision, at::kCPU);
      EXPECT_EQ(network->forward(images).scalar_type(), precision == Precision::bf16 ? at::kBFloat16 : at::kFloat);
    }
    for (const auto& [name, layer] : named_layers(*network)) layer->set_observer(nullptr);
    return observer.types;
  };
  const std::size_t layers = named_layers(*network).size();
  EXPECT_EQ(types_of(Precision::bf16), std::vector<at::ScalarType>(layers, at::kBFloat16));
  EXPECT_EQ(types_of(Precision::float32), std::vector<at::ScalarType>(layers, at::kFloat));
  // Weights and running statistics stay as they are; a change of the weights is seen by the next scope.
  for (const auto& buffer : network->named_buffers()) EXPECT_NE(buffer.tensor.scalar_type(), at::kBFloat16);
  at::Tensor weight = at::randn({4, 4}).set_requires_grad(true);
  const auto product = [&] {
    const Autocast outer(Precision::bf16, at::kCPU), inner(Precision::bf16, at::kCPU);
    return at::mm(at::ones({1, 4}), weight).detach();
  };
  const at::Tensor before = product();
  weight.detach().mul_(2.0);
  EXPECT_TRUE(at::equal(product(), before * 2.0));
  EXPECT_EQ(at::mm(at::ones({1, 4}), weight).scalar_type(), at::kFloat);
}

TEST(Autocast, NamesAreChecked) {
  EXPECT_EQ(to_precision("bf16", at::kCPU), Precision::bf16);
  EXPECT_EQ(to_precision("fp16", at::kCUDA), Precision::fp16);
  EXPECT_TRUE(contains(message_of<ConfigError>([] { to_precision("fp16", at::kCPU); }), "needs a GPU"));
  EXPECT_TRUE(contains(message_of<ConfigError>([] { to_precision("fp8", at::kCPU); }), "float32, bf16 or fp16"));
}

TEST(Learner, ACudaGraphOnTheCpuIsRefused) {
  Config config;
  config.training.cuda_graph = true;
  config.training.batch_size = 4;
  const auto experiment = testing::synthetic_experiment(8, 4, config);
  const auto single = make_single_communicator(at::kCPU);
  PhaseTimer timer;
  const auto network = make_network(*experiment, "mlp", 5, *single);
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { Learner(*experiment, network, *single, timer); }),
                       "training.cuda_graph needs a GPU"));
  EXPECT_TRUE(
      contains(message_of<ConfigError>([&] { check_training_step(config.training, at::kCUDA, 2); }), "one rank"));
  check_training_step(config.training, at::kCUDA, 1);
}

/// On the CPU "recording" keeps the work and "replaying" does it: with what the recording was given, as a GPU would.
void expect_replays_of_the_full_batches(bool begins_with_a_ragged_one) {
  int captures = 0;
  const GraphHooks hooks{.capture =
                             [&](const std::function<void()>& work) {
                               ++captures;
                               return std::shared_ptr<void>(std::make_shared<std::function<void()>>(work));
                             },
                         .replay = [](void* recording) { (*static_cast<std::function<void()>*>(recording))(); }};
  std::vector<double> seen;
  std::vector<const void*> places;
  const StepGraph::Work work = [&](const at::Tensor& images, const at::Tensor& labels, const at::Tensor& rate) {
    seen.push_back(images.sum().item<double>() + labels.sum().item<double>() + rate.item<double>());
    places.push_back(images.const_data_ptr());
  };
  StepGraph graph(hooks, at::kCPU, /*warm_up=*/2);
  std::vector<double> expected;
  const int first = begins_with_a_ragged_one ? -1 : 0;
  for (int step = first; step < 7; ++step) {
    const std::int64_t count = step == -1 || step == 4 ? 2 : 3;  // ragged batches among the others
    const at::Tensor images = at::full({count, 2}, step, at::kFloat), labels = at::full({count}, 10, at::kLong);
    expected.push_back(static_cast<double>(count * 2 * step + count * 10) + 0.5 * step);
    graph.run(images, labels, count, 0.5 * step, work);
  }
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(captures, 1);
  EXPECT_EQ(graph.replays(), 4);
  const auto place_at = [&](int step) { return places.at(static_cast<std::size_t>(step - first)); };
  EXPECT_EQ(place_at(2), place_at(3));
  EXPECT_EQ(place_at(2), place_at(6));
}

TEST(StepGraph, ReplaysTheRecordedStepOnNewInputsAndLaunchesOtherShapesAnew) {
  expect_replays_of_the_full_batches(/*begins_with_a_ragged_one=*/false);
}

TEST(StepGraph, ARunResumedBeforeARaggedBatchRecordsTheFullOnes) {
  expect_replays_of_the_full_batches(/*begins_with_a_ragged_one=*/true);
}

}  // namespace
}  // namespace sage
