#include "training/experiment.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "data/corruption.h"
#include "data/registry.h"
#include "data/sharding.h"
#include "distributed/node_memory.h"
#include "distributed/sync_batch_norm.h"
#include "models/registry.h"
#include "models/weights.h"

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

/// ALL ranks. Reads the data set once per node; the images stay in the memory that the ranks of the node share. Images
/// that are read as they are used stay in their files, which every rank opens. Throws on all ranks if it fails on any.
Dataset load_shared_dataset(const DataConfig& config, Communicator& communicator) {
  std::optional<Dataset> opened;
  const NodeShared shared = once_per_node(communicator, [&](const AllocateShared& allocate) {
    Dataset read = load_dataset(config, allocate);
    const bool in_files = read.train.source != nullptr;
    const json rest{{"in_files", in_files},
                    {"unreadable", {read.train.unreadable, read.test.unreadable}},
                    {"name", read.name},
                    {"class_count", read.class_count},
                    {"class_names", read.class_names},
                    {"mean", read.mean},
                    {"deviation", read.deviation}};
    if (in_files) {
      opened = std::move(read);
      return NodeShared{rest.dump(), {}};
    }
    return NodeShared{rest.dump(),
                      {read.train.images, labels_tensor(read.train), read.test.images, labels_tensor(read.test)}};
  });
  const json rest = json::parse(shared.text);
  if (rest.at("in_files").get<bool>()) {
    communicator.all_or_none([&] {
      if (!opened) opened = load_dataset(config);
    });
    return std::move(*opened);
  }
  Dataset dataset;
  rest.at("name").get_to(dataset.name);
  rest.at("class_count").get_to(dataset.class_count);
  rest.at("class_names").get_to(dataset.class_names);
  rest.at("mean").get_to(dataset.mean);
  rest.at("deviation").get_to(dataset.deviation);
  dataset.train = to_split(shared.tensors[0], shared.tensors[1]);
  dataset.test = to_split(shared.tensors[2], shared.tensors[3]);
  rest.at("unreadable").at(0).get_to(dataset.train.unreadable);
  rest.at("unreadable").at(1).get_to(dataset.test.unreadable);
  return dataset;
}

/// Drops what the configuration leaves out, and splits validation off.
void choose_candidates(Experiment& experiment) {
  const Config& config = experiment.config;
  const std::vector<std::int64_t>& labels = experiment.dataset.train.labels;
  const std::int64_t classes = experiment.dataset.class_count;
  auto& ids = experiment.candidates;
  ids = experiment.dataset.train.readable_ids();
  if (ids.empty()) throw DataError(fmt::format("{}: no image decodes", experiment.dataset.name));
  const auto keep = [&](Thinned parts, std::vector<std::int64_t>& dropped) {
    ids = std::move(parts.kept);
    dropped = std::move(parts.dropped);
  };
  if (config.data.long_tail < 1) {
    keep(make_long_tail(labels, ids, classes, config.data.long_tail, config.seed), experiment.dropped_by_long_tail);
  }
  if (config.data.minority_downsample > 0) {
    keep(downsample_minority(labels, ids, classes, config.data.minority_downsample, config.seed),
         experiment.dropped_by_downsampling);
  }
  if (config.data.validation_fraction > 0) {
    auto split = split_validation(labels, ids, classes, config.data.validation_fraction, config.seed);
    ids = std::move(split.train);
    experiment.validation = std::move(split.validation);
  }
  std::vector<bool> has_examples(static_cast<std::size_t>(classes), false);
  for (const std::int64_t id : ids) {
    has_examples[static_cast<std::size_t>(labels[static_cast<std::size_t>(id)])] = true;
  }
  const auto empty = std::ranges::find(has_examples, false);
  if (empty == has_examples.end()) return;
  const auto c = empty - has_examples.begin();
  throw DataError(fmt::format(
      "class {} ({}) of {} has no example to train on: nothing could learn it. Give files that hold some, or lower "
      "data.validation_fraction",
      c, experiment.dataset.class_names[static_cast<std::size_t>(c)], experiment.dataset.name));
}

/// Those of the candidates; a validation split keeps the true ones.
void make_labels_wrong(Experiment& experiment) {
  const DataConfig& config = experiment.config.data;
  experiment.labels = experiment.dataset.train.labels;
  const std::int64_t classes = experiment.dataset.class_count;
  if (config.corrupt_kind == "human") {
    experiment.corrupted =
        take_human_labels(experiment.labels, experiment.candidates, classes, config.human_labels, config.allow_partial);
  } else if (config.corrupt_labels > 0) {
    experiment.corrupted = corrupt_labels(experiment.labels, experiment.candidates, classes, config.corrupt_labels,
                                          config.corrupt_kind, experiment.config.seed);
  }
}

/// ALL ranks, for images in files: each looks at a part of them, and all know of those that do not decode.
void find_unreadable_images(Split& split, Communicator& communicator) {
  if (split.source == nullptr) return;
  std::vector<std::int64_t> mine;
  communicator.all_or_none([&] {
    const Range part = balanced_range(split.size(), communicator.rank(), communicator.size());
    mine = find_unreadable(part.begin, part.end, /*skip=*/true, [&](std::int64_t id) { split.source->check(id); });
  });
  const at::Tensor ids = at::tensor(mine, at::kLong).to(communicator.device()).unsqueeze(1);
  const at::Tensor all = communicator.all_gather_rows(ids).cpu().contiguous();
  const auto* first = all.const_data_ptr<std::int64_t>();
  split.unreadable.assign(first, first + all.numel());  // parts are in the order of ranks: ascending
}

}  // namespace

std::vector<std::int64_t> Experiment::class_counts() const {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(dataset.class_count), 0);
  for (const std::int64_t id : candidates) ++counts.at(static_cast<std::size_t>(labels[static_cast<std::size_t>(id)]));
  return counts;
}

std::unique_ptr<Experiment> prepare_experiment(const Config& config, at::Device device, Communicator& communicator) {
  if (config.training.cuda_graph && to_augment_options(config.data.augment).mix.any()) {
    throw ConfigError(
        "training.cuda_graph records steps with one label for each example, and data.augment.cutmix or mixup gives "
        "two: set one of them to false");
  }
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
  });
  if (config.data.corrupt_images == "skip") {
    find_unreadable_images(dataset.train, communicator);
    find_unreadable_images(dataset.test, communicator);
  }
  communicator.all_or_none([&] {
    choose_candidates(*experiment);
    make_labels_wrong(*experiment);
    const bool channels_last = config.training.channels_last;
    check_augment_options(to_augment_options(config.data.augment), {dataset.height(), dataset.width()});
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
  if (name != model.name) model.stem = "auto";  // a proxy of another architecture, which may have one stem only
  model.name = name;
  const Dataset& dataset = experiment.dataset;
  auto network =
      make_model(model, {dataset.channels(), dataset.height(), dataset.width()}, dataset.class_count, seed, batch_norm);
  network->to(experiment.device, at::kFloat,
              experiment.config.training.channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  return network;
}

std::shared_ptr<Classifier> make_starting_network(const Experiment& experiment, std::uint64_t seed, Communicator& all,
                                                  Communicator& statistics) {
  const ModelConfig& config = experiment.config.model;
  auto network = make_network(experiment, config.name, seed, statistics);
  if (config.pretrained.empty()) return network;
  all.all_or_none([&] {
    const auto left_out = load_pretrained(*network, config.pretrained);
    log::info("{} starts from {}{}", config.name, config.pretrained,
              left_out.empty() ? "" : fmt::format("; its classifier stays fresh: {}", fmt::join(left_out, ", ")));
  });
  return network;
}

std::uint64_t derived_seed(std::uint64_t seed, const char* purpose) {
  RandomStream stream(seed, purpose);
  const std::uint64_t high = stream();
  return high << 32 | stream();
}

}  // namespace sage
