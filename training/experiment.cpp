#include "training/experiment.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "data/corruption.h"
#include "data/registry.h"
#include "distributed/node_memory.h"
#include "distributed/sync_batch_norm.h"
#include "models/registry.h"

namespace sage {
namespace {

using nlohmann::json;

at::Tensor labels_tensor(const Split& split) {
  at::Tensor labels = at::empty({split.size()}, at::kLong);
  std::ranges::copy(split.labels, labels.mutable_data_ptr<std::int64_t>());
  return labels;
}

Split to_split(const at::Tensor& images, const at::Tensor& labels) {
  const auto* first = labels.const_data_ptr<std::int64_t>();
  return {images, {first, first + labels.numel()}};
}

/// ALL ranks. Reads the data set once per node; the images stay in the memory that the ranks of the node share. Throws
/// on all ranks if it fails on any.
Dataset load_shared_dataset(const DataConfig& config, Communicator& communicator) {
  const NodeShared shared = once_per_node(communicator, [&](const AllocateShared& allocate) {
    const Dataset read = load_dataset(config, allocate);
    const json rest{{"name", read.name},
                    {"class_count", read.class_count},
                    {"class_names", read.class_names},
                    {"mean", read.mean},
                    {"deviation", read.deviation}};
    return NodeShared{rest.dump(),
                      {read.train.images, labels_tensor(read.train), read.test.images, labels_tensor(read.test)}};
  });
  const json rest = json::parse(shared.text);
  Dataset dataset;
  rest.at("name").get_to(dataset.name);
  rest.at("class_count").get_to(dataset.class_count);
  rest.at("class_names").get_to(dataset.class_names);
  rest.at("mean").get_to(dataset.mean);
  rest.at("deviation").get_to(dataset.deviation);
  dataset.train = to_split(shared.tensors[0], shared.tensors[1]);
  dataset.test = to_split(shared.tensors[2], shared.tensors[3]);
  return dataset;
}

}  // namespace

std::vector<std::int64_t> Experiment::class_counts() const {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(dataset.class_count), 0);
  for (const std::int64_t id : candidates) ++counts.at(static_cast<std::size_t>(labels[static_cast<std::size_t>(id)]));
  return counts;
}

std::unique_ptr<Experiment> prepare_experiment(const Config& config, at::Device device, Communicator& communicator) {
  auto experiment = std::make_unique<Experiment>();
  experiment->config = config;
  experiment->device = device;
  experiment->global_batch = config.training.batch_size_per_rank > 0
                                 ? config.training.batch_size_per_rank * communicator.size()
                                 : config.training.batch_size;
  Dataset& dataset = experiment->dataset;
  const bool share = config.data.share_on_node && communicator.size() > 1;
  if (share) dataset = load_shared_dataset(config.data, communicator);
  communicator.all_or_none([&] {
    if (!share) dataset = load_dataset(config.data);
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
