#include "training/plan.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "data/sharding.h"
#include "distributed/shard_plan.h"
#include "models/layers.h"
#include "models/per_example_gradients.h"
#include "models/registry.h"
#include "selection/gradient_sketch.h"
#include "selection/quota.h"
#include "selection/registry.h"
#include "training/dropout/options.h"
#include "training/learner.h"
#include "training/selection_schedule.h"

namespace sage {
namespace {

constexpr std::int64_t float_bytes = 4;

/// Adds up what the layers see and make of one example.
class ActivationCount : public LayerObserver {
 public:
  at::Tensor observe(const Layer&, const at::Tensor& input, at::Tensor output) override {
    values += input.numel() + output.numel();
    return output;
  }
  std::int64_t values = 0;
};

std::int64_t activation_bytes_per_example(Classifier& network, at::Device device) {
  const at::NoGradGuard no_gradients;
  ActivationCount count;
  const auto layers = named_layers(network);
  const bool was_training = network.is_training();
  network.eval();
  for (const auto& [name, layer] : layers) layer->set_observer(&count);
  const InputShape shape = network.input_shape();
  network.forward(
      at::zeros({1, shape.channels, shape.height, shape.width}, at::TensorOptions(at::kFloat).device(device)));
  for (const auto& [name, layer] : layers) layer->set_observer(nullptr);
  network.train(was_training);
  return count.values * float_bytes;
}

/// Throws ConfigError where the method lacks what it needs.
void check_method(const Experiment& experiment) {
  const SelectionConfig& config = experiment.config.selection;
  check_selection_needs(config, static_cast<std::int64_t>(experiment.validation.size()));
  if (wants_forgetting(config) && experiment.config.training.cuda_graph) {
    throw ConfigError(fmt::format(
        "selection.method={} looks at the predictions of each training step, which a recorded step does not give: set "
        "training.cuda_graph=false",
        config.method));
  }
  const auto& augment = experiment.config.data.augment;
  if (wants_forgetting(config) && (augment.cutmix.enabled || augment.mixup.enabled)) {
    throw ConfigError(
        fmt::format("selection.method={} watches how each example is predicted in training, and data.augment.{} mixes "
                    "images of different labels: leave one of them out",
                    config.method, augment.cutmix.enabled ? "cutmix" : "mixup"));
  }
  if (averages_networks(config) && config.early.models > 1 && config.scorer != "proxy") {
    throw ConfigError(fmt::format(
        "selection.early.models={} averages over networks that are trained for the purpose: set selection.scorer=proxy "
        "and selection.proxy.steps, or selection.early.models=1",
        config.early.models));
  }
}

/// Examples that are chosen from together: of the largest class, or all.
std::int64_t largest_group(const Experiment& experiment) {
  const auto count = static_cast<std::int64_t>(experiment.candidates.size());
  if (!experiment.config.selection.per_class) return count;
  std::vector<std::int64_t> counts(static_cast<std::size_t>(experiment.dataset.class_count), 0);
  for (const std::int64_t id : experiment.candidates) {
    ++counts[static_cast<std::size_t>(experiment.labels[static_cast<std::size_t>(id)])];
  }
  return *std::ranges::max_element(counts);
}

void plan_selection(Plan& plan, const Experiment& experiment, Classifier& network, int rank, int ranks) {
  const SelectionConfig& config = experiment.config.selection;
  if (!selects_at_all(config)) return;
  check_method(experiment);
  const SelectionMethod& method = find_selection_method(config.method);
  if (!method.needs_gradients && !wants_forgetting(config)) return;
  if (config.scorer == "proxy" && !config.proxy.model.empty()) {
    try {
      find_model(config.proxy.model);
    } catch (const ConfigError& error) {
      throw ConfigError(fmt::format("selection.proxy.model: {}", error.what()));
    }
  }
  const PerExampleGradients gradients(network, config.gradient.scope, 0.0, config.gradient.chunk_size);
  if (method.name != "sage") {
    const ShardPlan shards = plan_shards(plan.candidates, config.batch_size, config.shards, ranks);
    const auto [begin, end] = shards.positions_of(rank);
    plan.memory.scores = method_bytes(config, end - begin, largest_group(experiment), network.feature_count(),
                                      experiment.dataset.class_count) +
                         plan.candidates * 16;
    return;
  }
  plan.gradient_dimension = gradients.dimension();
  plan.sketch_rows = largest_size(config.sketch);
  plan.exact_covariance = is_exact(config.sketch, plan.gradient_dimension);
  const ShardPlan shards = plan_shards(plan.candidates, plan.sketch_rows, config.shards, ranks);
  plan.shards = shards.shard_count();
  const auto [first, last] = shards.shards_of(rank);
  plan.shards_of_rank = last - first;

  const std::int64_t D = plan.gradient_dimension;
  if (plan.exact_covariance) {
    plan.memory.sketches = D * D * 8 + config.batch_size * D * float_bytes;
  } else if (config.sketch.method == "fd") {
    std::int64_t pending = 1;  // unfinished nodes: at most one a level of the rank's part of the tree
    for (std::int64_t shard = plan.shards_of_rank; shard > 0; shard /= 2) ++pending;
    const auto buffer = static_cast<std::int64_t>(config.sketch.buffer * static_cast<double>(plan.sketch_rows));
    plan.memory.sketches = (buffer + pending * plan.sketch_rows) * D * float_bytes;
  } else {
    plan.memory.sketches = plan.sketch_rows * D * float_bytes;
  }
  const auto [begin, end] = shards.positions_of(rank);
  const std::int64_t projected = plan.exact_covariance ? D : plan.sketch_rows;
  const std::int64_t kept_of_example =
      projected + (gradients.is_forward_only() ? network.feature_count() + 2 * network.class_count() : 0);
  plan.memory.scores = (end - begin) * kept_of_example * float_bytes;
  if (config.scores == "recomputed" ||
      (config.scores == "auto" && plan.memory.scores > config.memory_limit_mib << 20)) {
    plan.memory.scores = 0;
  }
  plan.memory.scores += plan.candidates * 16;  // ids, labels and scores of all
}

std::string mebibytes(std::int64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

}  // namespace

Plan make_plan(const Experiment& experiment, Classifier& network, int rank, int ranks) {
  const Config& config = experiment.config;
  check_training_step(config.training, experiment.device, ranks);
  check_dropout(experiment);
  Plan plan;
  plan.candidates = static_cast<std::int64_t>(experiment.candidates.size());
  plan.kept =
      selects_at_all(config.selection) ? subset_size(config.selection.fraction, plan.candidates) : plan.candidates;
  plan.full_epoch_steps = experiment.steps_of(plan.candidates);
  plan.subset_epoch_steps = experiment.steps_of(plan.kept);
  if (is_crest(config.selection)) {
    plan.crest = plan_crest(experiment);
    plan.full_epoch_steps = plan.subset_epoch_steps = plan.crest->steps_per_epoch;
  }
  const auto steps = steps_of_epochs(config, plan.full_epoch_steps, plan.subset_epoch_steps);
  plan.epochs = static_cast<std::int64_t>(steps.size());
  plan.total_steps = std::accumulate(steps.begin(), steps.end(), std::int64_t{0});
  for (std::size_t epoch = 0; epoch < steps.size(); ++epoch) {
    if (selects_before(config.selection, static_cast<std::int64_t>(epoch))) {
      plan.selection_epochs.push_back(static_cast<std::int64_t>(epoch));
    }
  }
  plan.parameters = parameter_count(network);
  plan.batch_of_rank = balanced_range(experiment.global_batch, 0, ranks).size();
  plan.memory.images = experiment.train_images->bytes() + experiment.test_images->bytes();
  const std::int64_t slots = config.training.optimizer == "sgd" ? (config.training.momentum > 0 ? 1 : 0) : 2;
  plan.memory.network = plan.parameters * float_bytes * (2 + slots + (ranks > 1 ? 1 : 0));
  plan.memory.activations = plan.batch_of_rank * activation_bytes_per_example(network, experiment.device);
  plan_selection(plan, experiment, network, rank, ranks);
  if (plan.crest) {
    constexpr std::int64_t vectors = 7;  // three kept, four more in a fit
    plan.memory.crest = vectors * plan.parameters * float_bytes +
                        plan.crest->most_forwarded * experiment.dataset.class_count * float_bytes;
  }
  return plan;
}

std::string to_string(const Plan& plan, const Experiment& experiment, int ranks) {
  const Config& config = experiment.config;
  const Dataset& data = experiment.dataset;
  std::string text = fmt::format("data       {}: {} train, {} validation, {} test, {} classes, {} x {} x {}", data.name,
                                 plan.candidates, experiment.validation.size(), data.test.size(), data.class_count,
                                 data.channels(), data.height(), data.width());
  const std::size_t dropped = experiment.dropped_by_long_tail.size() + experiment.dropped_by_downsampling.size();
  if (dropped > 0) text += fmt::format("; {} left out on purpose", dropped);
  if (!experiment.corrupted.empty()) {
    text += fmt::format("; {} labels made wrong ({})", experiment.corrupted.size(), config.data.corrupt_kind);
  }
  text += fmt::format("\nnetwork    {}: {} parameters\n", config.model.name, plan.parameters);
  text += fmt::format("ranks      {} on {}; global batch {}, up to {} per rank\n", ranks, experiment.device.str(),
                      experiment.global_batch, plan.batch_of_rank);
  if (const auto& crest = plan.crest) {
    const auto& s = config.selection.crest;
    text += fmt::format(
        "selection  crest: {:.4g} % of the steps of full training, in {} short epochs of {} steps; random sets of {} "
        "({} of each class), coresets of {}; tau {}, h {}, at least {} examples remain\n",
        100 * s.train_fraction, (plan.total_steps + crest->steps_per_epoch - 1) / crest->steps_per_epoch,
        crest->steps_per_epoch, crest->of_each_class * data.class_count, crest->of_each_class, crest->coreset_size,
        s.check_threshold, s.interval_factor, crest->least_remaining);
  } else if (plan.selection_epochs.empty()) {
    text += "selection  none: all examples are trained on\n";
  } else {
    const auto& s = config.selection;
    text += fmt::format(
        "selection  {}: keep {} of {} ({:.4g} %), before epoch {}{}\n", s.method, plan.kept, plan.candidates,
        100 * s.fraction, plan.selection_epochs.front() + 1,
        plan.selection_epochs.size() > 1 ? fmt::format(" and {} more times", plan.selection_epochs.size() - 1) : "");
    if (plan.gradient_dimension > 0) {
      const std::string sketch = plan.exact_covariance
                                     ? fmt::format("exact {0} x {0} covariance (D <= 4 ell)", plan.gradient_dimension)
                                     : fmt::format("{} of {} rows", s.sketch.method, plan.sketch_rows);
      text += fmt::format("gradients  D = {}; {}; {} logical shards, {} of them on this rank\n",
                          plan.gradient_dimension, sketch, plan.shards, plan.shards_of_rank);
    }
  }
  if (config.dropout.mode != "none") {
    const std::int64_t parted = std::min(revision_epoch(config.dropout, plan.epochs), plan.epochs);
    text += fmt::format("dropout    {}: a part of each batch in the first {} of {} epochs\n", config.dropout.mode,
                        parted, plan.epochs);
  }
  text += fmt::format("steps      {} in all; {} per epoch on all data, {} on the subset\n", plan.total_steps,
                      plan.full_epoch_steps, plan.subset_epoch_steps);
  text += fmt::format(
      "memory     about {} per rank beside the program and LibTorch: images {}, network {}, activations {}, "
      "sketches {}, kept scores {}{}\n",
      mebibytes(plan.memory.peak()), mebibytes(plan.memory.images), mebibytes(plan.memory.network),
      mebibytes(plan.memory.activations), mebibytes(plan.memory.sketches), mebibytes(plan.memory.scores),
      plan.crest ? fmt::format(", crest {}", mebibytes(plan.memory.crest)) : "");
  return text;
}

}  // namespace sage
