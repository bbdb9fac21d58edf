// A step on a mixed batch (CutMix, MixUp) is one on soft labels.
#include <ATen/ops/allclose.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/registry.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/learner.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

TEST(MixedStep, IsTheStepOnSoftLabels) {
  for (const double own_part : {0.7, 0.2}) {
    Config config;
    config.training.batch_size = 12;
    config.training.momentum = 0.0;
    config.training.weight_decay = 0.0;
    config.training.label_smoothing = 0.1;
    config.training.accumulate = 3;
    const auto experiment = testing::synthetic_experiment(24, 4, config);
    const auto single = make_single_communicator(at::kCPU);
    PhaseTimer timer;
    const auto network = make_network(*experiment, "mlp", 5, *single),
               oracle = make_network(*experiment, "mlp", 5, *single);
    Learner learner(*experiment, network, *single, timer);
    Loader loader(*experiment->train_images, experiment->labels, EpochPlan(experiment->candidates, 12, 0, 1, 5, 0), {},
                  0);
    auto batch = loader.next();
    batch->own_part = own_part;
    batch->other_labels = batch->labels.roll(1);
    learner.step(*batch, 0.5, "test");

    oracle->train();
    const at::Tensor logits = oracle->forward(batch->images);
    at::Tensor soft = at::full({12, 4}, 0.1 / 4);
    for (std::int64_t i = 0; i < 12; ++i) {
      soft[i][batch->labels[i].item<std::int64_t>()] += 0.9 * own_part;
      soft[i][batch->other_labels[i].item<std::int64_t>()] += 0.9 * (1 - own_part);
    }
    const at::Tensor loss = -(soft * logits.log_softmax(1)).sum() / 12;
    loss.backward();
    const at::NoGradGuard no_gradients;
    const auto mine = network->named_parameters(), theirs = oracle->named_parameters();
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const at::Tensor expected = theirs[i].tensor - 0.5 * theirs[i].tensor.grad();
      EXPECT_TRUE(at::allclose(mine[i].tensor, expected, 1e-5, 1e-6)) << mine[i].name;
    }
    EXPECT_NEAR(learner.last_loss(), loss.item<double>(), 1e-5);
    // Counted against the label with the larger part.
    const at::Tensor dominant = own_part < 0.5 ? batch->other_labels : batch->labels;
    EXPECT_DOUBLE_EQ(learner.take_totals().accuracy, logits.argmax(1).eq(dominant).sum().item<double>() / 12);
  }
}

TEST(MixedStep, CannotBeRecorded) {
  Config config;
  config.data.augment.cutmix.enabled = true;
  config.training.cuda_graph = true;
  const auto single = make_single_communicator(at::kCPU);
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { prepare_experiment(config, at::kCPU, *single); }), "cuda_graph"));
}

}  // namespace
}  // namespace sage
