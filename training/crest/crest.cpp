#include "training/crest/crest.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "core/error.h"
#include "core/whereabouts.h"
#include "data/image_store.h"
#include "training/crest/example_outputs.h"
#include "training/crest/hutchinson.h"
#include "training/evaluation.h"

namespace sage {
namespace {

/// A fit goes through a batch in parts, since a pass that is differentiated twice takes the memory of about three
/// ordinary ones: this many for each pass of a training step.
constexpr std::int64_t fit_parts = 4;

/// Coresets that a fit looks at, unless there are fewer or the first one had more: two probes, which the averages over
/// the fits add up.
constexpr std::int64_t least_fitted = 2;

std::vector<std::int64_t> ascending_union(const std::vector<std::vector<std::int64_t>>& sets) {
  std::vector<std::int64_t> ids;
  for (const auto& set : sets) ids.insert(ids.end(), set.begin(), set.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

/// ALL ranks: what rank 0 has computed, so that all decide alike whatever their hardware.
std::vector<double> agree(std::vector<double> values, Communicator& communicator) {
  const at::Tensor there = at::tensor(values, at::kDouble).to(communicator.device());
  communicator.broadcast(there, 0);
  const at::Tensor host = there.cpu();
  const double* value = host.const_data_ptr<double>();
  return {value, value + host.numel()};
}

}  // namespace

Crest::Crest(const Experiment& experiment, Job& job, Learner& learner, std::function<void(const CrestUpdate&)> record)
    : experiment_(experiment),
      selection_(experiment.config.selection),
      config_(selection_.crest),
      job_(job),
      learner_(learner),
      record_(std::move(record)),
      plan_(plan_crest(experiment)),
      parameters_(learner.network().parameters()),
      seed_(derived_seed(experiment.config.seed, "crest")),
      remaining_(experiment, plan_.of_each_class, plan_.least_remaining),
      watch_(static_cast<std::int64_t>(experiment.labels.size())),
      adaptation_{.interval = 1, .coresets = plan_.first_coresets} {}

Batch Crest::next(const TrainingPosition& position) {
  const std::int64_t step = position.step;
  CrestUpdate update;
  update.step = step;
  if (coresets_.empty() || (is_check_due(step) && is_model_off(update))) {
    select(step, update);
    fit(step, update);
    if (job_.is_lead()) record_(update);
  }
  whereabouts::set_activity("training");
  const auto pick = RandomStream(seed_, "crest/coreset", static_cast<std::uint64_t>(step)).below(coresets_.size());
  const auto scope = job_.timer.measure("data");
  return to_batch(coresets_[pick], step);
}

bool Crest::is_check_due(std::int64_t step) const {
  const std::int64_t since = step - selected_at_;
  return since > 0 && since % adaptation_.interval == 0;
}

bool Crest::is_model_off(CrestUpdate& update) {
  const auto scope = job_.timer.measure_to_the_end("crest.checking");
  whereabouts::set_activity("check of the quadratic model");
  learner_.settle();
  const std::vector<std::int64_t>& ids = config_.compat == "release" ? experiment_.candidates : check_set_;
  const ExampleOutputs outputs = forward_for_loss(ids);
  const auto agreed = agree({model_.loss_at(weights_now()), outputs.mean_loss}, *job_.communicator);
  update.model_loss = agreed[0];
  update.true_loss = agreed[1];
  update.true_loss_error = outputs.loss_error;
  update.error = std::abs(agreed[0] - agreed[1]) / std::max(agreed[1], 1e-300);
  ++epoch_.checks;
  epoch_.forwarded_by_checks += static_cast<std::int64_t>(ids.size());
  epoch_.error = update.error;
  return !(*update.error <= config_.check_threshold);  // also where the model is not finite
}

ExampleOutputs Crest::forward_for_loss(std::span<const std::int64_t> ids) {
  ExampleOutputs outputs =
      forward_examples(learner_.network(), *experiment_.train_images, experiment_.labels, ids, selection_.batch_size,
                       experiment_.config.training.label_smoothing, *job_.communicator);
  watch_.observe(ids, outputs);
  return outputs;
}

void Crest::select(std::int64_t step, CrestUpdate& update) {
  const auto scope = job_.timer.measure_to_the_end("crest.selection");
  whereabouts::set_activity("selection of coresets");
  learner_.settle();
  std::vector<std::vector<std::int64_t>> sets;
  for (std::int64_t set = 0; set < adaptation_.coresets; ++set) {
    sets.push_back(remaining_.draw(
        RandomStream(seed_, "crest/random set", static_cast<std::uint64_t>(step), static_cast<std::uint32_t>(set))));
  }
  const std::vector<std::int64_t> ids = ascending_union(sets);
  const ExampleOutputs outputs = forward_examples(learner_.network(), *experiment_.train_images, experiment_.labels,
                                                  ids, selection_.batch_size, 0.0, *job_.communicator);
  watch_.observe(ids, outputs);
  coresets_ = choose_coresets(sets, sets_drawn_, ids, outputs.residuals,
                              {.size = plan_.coreset_size,
                               .of_each_class = plan_.of_each_class,
                               .class_count = experiment_.dataset.class_count,
                               .seed = seed_,
                               .is_stochastic = config_.greedy == "stochastic",
                               .as_released = config_.compat == "release"},
                              *job_.communicator);
  selected_at_ = step;
  sets_drawn_ += static_cast<std::int64_t>(sets.size());
  ++epoch_.updates;
  epoch_.forwarded_by_selection += static_cast<std::int64_t>(ids.size());
  std::vector<std::int64_t> chosen;
  for (const Coreset& coreset : coresets_) chosen.insert(chosen.end(), coreset.ids.begin(), coreset.ids.end());
  update.round = epoch_.updates;
  update.coresets = epoch_.coresets = static_cast<std::int64_t>(coresets_.size());
  update.remaining = remaining_.size();
  update.forgettability = epoch_.forgettability = watch_.forgettability(chosen);
  update.forgettability_of_random = epoch_.forgettability_of_random = watch_.forgettability(ids);
}

at::Tensor Crest::weights_now() const { return flattened_parameters(parameters_).to(at::kFloat); }

void Crest::fit(std::int64_t step, CrestUpdate& update) {
  const auto scope = job_.timer.measure_to_the_end("crest.approximation");
  whereabouts::set_activity("fit of the quadratic model");
  Derivatives derivatives = measure_derivatives(step);
  const auto measured =
      agree({derivatives.loss, derivatives.gradient.norm().item<double>(), derivatives.diagonal.norm().item<double>()},
            *job_.communicator);
  if (!std::all_of(measured.begin(), measured.end(), [](double value) { return std::isfinite(value); })) {
    coresets_.clear();  // whoever goes on from here chooses and fits anew
    throw TrainingError(fmt::format(
        "crest, step {}: the loss of the coresets, its gradient or its Hessian is not finite: lower training.lr",
        step + 1));
  }
  update.fitted_loss = derivatives.loss;  // of the coresets; what the model begins at may be another one
  if (config_.compat == "paper") {
    // The model begins at the loss of the very examples that it will be checked on: else two samples' errors, and what
    // coresets' losses lie off the mean, would count as errors of the model.
    check_set_ = remaining_.draw(RandomStream(seed_, "crest/check set", static_cast<std::uint64_t>(step)));
    epoch_.forwarded_by_selection += static_cast<std::int64_t>(check_set_.size());
    derivatives.loss = agree({forward_for_loss(check_set_).mean_loss}, *job_.communicator)[0];
  }
  model_.fit(derivatives, weights_now());
  const auto agreed =
      agree({model_.gradient().norm().item<double>(), model_.diagonal().norm().item<double>()}, *job_.communicator);
  update.gradient_norm = agreed[0];
  update.hessian_norm = agreed[1];
  if (model_.fits() == 1) {
    first_norm_ = agreed[1];
  } else {
    adaptation_ = adapt(first_norm_, agreed[1], config_.interval_factor, config_.subset_factor, plan_.steps_per_epoch);
  }
  epoch_.hessian_norm = agreed[1];
  update.interval = adaptation_.interval;
  update.next_coresets = adaptation_.coresets;
}

Derivatives Crest::measure_derivatives(std::int64_t step) {
  // With the running statistics of batch normalisation, as the loss is checked: then examples are independent, so that
  // a batch can be cut into parts and dealt to the ranks.
  const EvalMode eval_mode(learner_.network());
  Communicator& communicator = *job_.communicator;
  const HessianProduct how = to_hessian_product(config_.hessian);
  std::int64_t dimension = 0;
  for (const at::Tensor& parameter : parameters_) dimension += parameter.numel();
  // [gradient, diagonal]: one reduction.
  const at::Tensor sums = at::zeros({2 * dimension}, at::TensorOptions(at::kFloat).device(job_.device));
  const at::Tensor gradient = sums.narrow(0, 0, dimension), diagonal = sums.narrow(0, dimension, dimension);
  double loss = 0.0;
  const std::int64_t parts = fit_parts * experiment_.config.training.accumulate * communicator.size();
  const std::size_t fitted =
      config_.compat == "release"
          ? coresets_.size()
          : std::min(coresets_.size(), static_cast<std::size_t>(std::max(least_fitted, plan_.first_coresets)));
  for (std::size_t set = 0; set < fitted; ++set) {
    const Coreset& coreset = coresets_[set];
    const auto size = static_cast<std::int64_t>(coreset.ids.size());
    const std::int64_t part = (size + parts - 1) / parts;
    at::Tensor probe;
    const Range mine = balanced_range((size + part - 1) / part, communicator.rank(), communicator.size());
    for (std::int64_t begin = mine.begin * part; begin < std::min(mine.end * part, size); begin += part) {
      if (!probe.defined()) {
        probe = random_signs(
            RandomStream(seed_, "crest/probe", static_cast<std::uint64_t>(step), static_cast<std::uint32_t>(set)),
            dimension, job_.device);
      }
      const auto count = static_cast<std::size_t>(std::min(part, size - begin));
      const auto ids = std::span(coreset.ids).subspan(static_cast<std::size_t>(begin), count);
      std::vector<std::int64_t> labels;
      for (const std::int64_t id : ids) labels.push_back(experiment_.labels[static_cast<std::size_t>(id)]);
      const at::Tensor images = experiment_.train_images->images_of(ids), target = to_device(labels, job_.device);
      // The mean over the batch's examples and over the batches.
      const auto part_weights = std::span(coreset.weights).subspan(static_cast<std::size_t>(begin), count);
      const at::Tensor weights = to_device(part_weights, job_.device);
      weights.div_(static_cast<double>(size) * static_cast<double>(fitted));
      loss += add_derivatives(
          [&] {
            const at::Tensor losses = cross_entropy_by_operations(learner_.network().forward(images), target,
                                                                  experiment_.config.training.label_smoothing);
            return (losses * weights).sum();
          },
          parameters_, probe, how, gradient, diagonal);
    }
  }
  const at::NoGradGuard no_gradients;
  communicator.all_reduce_sum(sums);
  const at::Tensor losses = at::full({1}, loss, at::TensorOptions(at::kDouble).device(communicator.device()));
  communicator.all_reduce_sum(losses);
  return {losses.item<double>(), gradient, diagonal};
}

Batch Crest::to_batch(const Coreset& coreset, std::int64_t step) {
  // Augmentation and order within the batch are drawn anew at each step.
  Loader loader = make_loader(experiment_, *job_.communicator, coreset.ids, seed_, step, /*skip=*/0, /*workers=*/0);
  Batch batch = *loader.next();
  std::unordered_map<std::int64_t, float> weight_of;
  for (std::size_t i = 0; i < coreset.ids.size(); ++i) weight_of[coreset.ids[i]] = coreset.weights[i];
  std::vector<float> weights;
  weights.reserve(batch.ids.size());
  for (const std::int64_t id : batch.ids) weights.push_back(weight_of.at(id));
  batch.weights = to_device(weights, job_.device);
  return batch;
}

void Crest::stepped(const TrainingPosition& position) {
  if (!config_.drop_learned || position.step % config_.drop_interval != 0) return;
  remaining_.exclude(watch_.learned(config_.learned_loss));
  watch_.start_anew();
}

CrestEpoch Crest::end_epoch(const TrainingPosition& position, double seconds, bool evaluates) {
  epoch_.interval = adaptation_.interval;
  epoch_.remaining = remaining_.size();
  const auto& dropped = remaining_.excluded();
  epoch_.dropped = static_cast<std::int64_t>(dropped.size());
  const PhaseTimer& timer = job_.timer;
  auto& spent = epoch_.seconds;
  spent = {timer.seconds("crest.selection"), timer.seconds("crest.approximation"), timer.seconds("crest.checking"),
           0.0};
  spent.training = std::max(0.0, seconds - spent.selection - spent.approximation - spent.checking);
  epoch_.dropped_accuracy.reset();
  if (evaluates && !dropped.empty()) {
    // As many as a check looks at: the whole would take longer than the epoch.
    std::vector<std::int64_t> sample;
    const auto order = random_permutation(
        epoch_.dropped, RandomStream(seed_, "crest/dropped", static_cast<std::uint64_t>(position.epoch)));
    for (std::size_t i = 0; i < std::min(dropped.size(), static_cast<std::size_t>(plan_.set_size)); ++i) {
      sample.push_back(dropped[static_cast<std::size_t>(order[i])]);
    }
    epoch_.dropped_accuracy = evaluate(learner_.network(), *experiment_.train_images, experiment_.labels, sample,
                                       selection_.batch_size, *job_.communicator, experiment_.config.training.precision)
                                  .mean.accuracy;
  }
  return epoch_;
}

}  // namespace sage
