#include "training/experiment.h"

#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "data/corruption.h"
#include "data/registry.h"
#include "distributed/sync_batch_norm.h"
#include "models/registry.h"

namespace sage {

std::unique_ptr<Experiment> prepare_experiment(const Config& config, at::Device device, Communicator& communicator) {
  auto experiment = std::make_unique<Experiment>();
  experiment->config = config;
  experiment->device = device;
  experiment->global_batch = config.training.batch_size_per_rank > 0
                                 ? config.training.batch_size_per_rank * communicator.size()
                                 : config.training.batch_size;
  communicator.all_or_none([&] {
    Dataset& dataset = experiment->dataset;
    dataset = load_dataset(config.data);
    experiment->labels = dataset.train.labels;
    if (config.data.validation_fraction > 0) {
      auto split = split_validation(dataset, config.data.validation_fraction, config.seed);
      experiment->candidates = std::move(split.train);
      experiment->validation = std::move(split.validation);
    } else {
      experiment->candidates.resize(experiment->labels.size());
      std::iota(experiment->candidates.begin(), experiment->candidates.end(), std::int64_t{0});
    }
    if (config.data.corrupt_labels > 0) {
      experiment->corrupted = corrupt_labels(experiment->labels, experiment->candidates, dataset.class_count,
                                             config.data.corrupt_labels, config.data.corrupt_kind, config.seed);
    }
    const bool channels_last = config.training.channels_last;
    check_augment_options({config.data.augment.crop, config.data.augment.flip}, dataset.height(), dataset.width());
    experiment->train_images = std::make_unique<ImageStore>(dataset, dataset.train, device, channels_last);
    experiment->test_images = std::make_unique<ImageStore>(dataset, dataset.test, device, channels_last);
  });
  return experiment;
}

std::shared_ptr<Classifier> make_network(const Experiment& experiment, const std::string& name, std::uint64_t seed,
                                         Communicator& statistics) {
  BatchNormFunction batch_norm;
  if (statistics.size() > 1 && experiment.config.training.sync_batch_norm) {
    batch_norm = [&statistics](const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& mean, const at::Tensor& variance, double momentum, double eps) {
      return sync_batch_norm(input, weight, bias, mean, variance, momentum, eps, statistics);
    };
  }
  ModelConfig model = experiment.config.model;
  model.name = name;
  const Dataset& dataset = experiment.dataset;
  auto network =
      make_model(model, {dataset.channels(), dataset.height(), dataset.width()}, dataset.class_count, seed, batch_norm);
  network->to(experiment.device, at::kFloat,
              experiment.config.training.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  return network;
}

std::uint64_t derived_seed(std::uint64_t seed, const char* purpose) {
  RandomStream stream(seed, purpose);
  const std::uint64_t high = stream();
  return high << 32 | stream();
}

}  // namespace sage
