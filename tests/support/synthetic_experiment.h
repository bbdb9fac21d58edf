// A small data set that needs no file.
#pragma once
#include <memory>

#include "core/random.h"
#include "training/experiment.h"

namespace sage::testing {

/// Coloured noise whose mean depends on the class: learnable, and made from nothing but a stream.
inline std::unique_ptr<Experiment> synthetic_experiment(std::int64_t count, std::int64_t classes, Config config) {
  auto experiment = std::make_unique<Experiment>();
  experiment->config = std::move(config);
  experiment->global_batch = experiment->config.training.batch_size;
  Dataset& dataset = experiment->dataset;
  dataset.name = "synthetic";
  dataset.class_count = classes;
  dataset.mean = {0.5F};
  dataset.deviation = {0.25F};
  dataset.train.images = at::empty({count, 1, 8, 8}, at::kByte);
  auto* pixel = dataset.train.images.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t id = 0; id < count; ++id) {
    RandomStream stream(11, "synthetic", static_cast<std::uint64_t>(id));
    const auto label = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(classes)));
    dataset.train.labels.push_back(label);
    for (int i = 0; i < 64; ++i) {
      const double level = i % classes == label ? 150.0 : 90.0;
      *pixel++ = static_cast<std::uint8_t>(level + 60.0 * stream.uniform());
    }
    experiment->candidates.push_back(id);
  }
  dataset.test = dataset.train;
  experiment->labels = dataset.train.labels;
  experiment->train_images = std::make_unique<ImageStore>(dataset, dataset.train, at::kCPU, true);
  experiment->test_images = std::make_unique<ImageStore>(dataset, dataset.test, at::kCPU, true);
  return experiment;
}

}  // namespace sage::testing
