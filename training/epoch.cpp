#include "training/epoch.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/whereabouts.h"
#include "data/image_store.h"
#include "distributed/parameter_hash.h"
#include "training/progress.h"

namespace sage {
namespace {

/// The batches of the epoch that are left. None where they are made one by one.
std::optional<Loader> make_loader(const Experiment& experiment, const Job& job, const EpochWork& work,
                                  std::span<const std::int64_t> ids, const TrainingPosition& position) {
  if (work.source != nullptr) return {};
  return make_loader(experiment, *job.communicator, ids, work.seed, position.epoch, position.order_position,
                     experiment.config.data.workers);
}

/// The end of the epoch's steps, of which `done` are done: sooner than planned where dropout has pruned the epoch.
std::int64_t last_step(const EpochWork& work, const std::optional<Loader>& loader, std::size_t examples,
                       std::int64_t done) {
  if (!loader) return work.steps;
  const std::int64_t made = done + loader->steps();
  const std::int64_t steps = examples < work.ids.size() ? std::min(work.steps, made) : work.steps;
  if (made >= steps) return steps;
  throw ConfigError(
      fmt::format("{}: the subset of {} examples makes {} steps where the configuration plans {}: it was chosen "
                  "with another selection.fraction; give the value that the run was started with",
                  work.title, examples, made, steps));
}

Batch next_batch(const EpochWork& work, std::optional<Loader>& loader, const TrainingPosition& position) {
  if (work.source != nullptr) return work.source->next(position);
  const auto scope = work.timer.measure("data");
  Batch batch = *loader->next();
  if (!work.weights.empty()) set_weights(batch, work.ids, work.weights);
  return batch;
}

void check_parameters(const EpochWork& work, const Job& job, std::int64_t interval, std::int64_t step) {
  if (interval == 0 || step % interval != 0) return;
  const auto scope = work.timer.measure("parameter_hash");
  check_same_parameters(work.learner.network().named_parameters(), *job.communicator);
}

}  // namespace

Loader make_loader(const Experiment& experiment, const Communicator& communicator, std::span<const std::int64_t> ids,
                   std::uint64_t seed, std::int64_t epoch, std::int64_t skip, std::int64_t workers) {
  const DataConfig& config = experiment.config.data;
  EpochPlan plan(ids, experiment.global_batch, communicator.rank(), communicator.size(), seed, epoch);
  plan.skip(skip);
  return Loader(*experiment.train_images, experiment.labels, std::move(plan), to_augment_options(config.augment),
                workers, config.prefetch);
}

void set_weights(Batch& batch, std::span<const std::int64_t> ids, std::span<const float> weights) {
  const auto weights_of = [&](const std::vector<std::int64_t>& examples) {
    std::vector<float> values;
    values.reserve(examples.size());
    for (const std::int64_t id : examples) {
      values.push_back(weights[static_cast<std::size_t>(std::lower_bound(ids.begin(), ids.end(), id) - ids.begin())]);
    }
    return to_device(values, batch.labels.device());
  };
  batch.weights = weights_of(batch.ids);
  if (batch.other_labels.defined()) batch.other_weights = weights_of(batch.other_ids);
}

void train_epoch(const Experiment& experiment, Job& job, const EpochWork& work, TrainingPosition& position) {
  const Config& config = experiment.config;
  const std::int64_t done = experiment.steps_of(position.order_position);
  const std::int64_t first_step = position.step - done;
  const auto ids = work.dropout != nullptr ? work.dropout->begin_epoch(work.ids, position.epoch) : work.ids;
  auto loader = make_loader(experiment, job, work, ids, position);
  const std::int64_t steps = last_step(work, loader, ids.size(), done);
  require(work.weights.empty() || work.weights.size() == work.ids.size(), "train_epoch: one weight for each example");
  require(work.dropout == nullptr || (work.source == nullptr && work.history == nullptr),
          "train_epoch: dropout takes whole batches, and leaves the history of forgetting with holes");
  if (work.history != nullptr) work.learner.watch_predictions();
  Progress progress(work.title, steps - done, config.output.log_interval);
  for (std::int64_t step = done; step < steps; ++step) {
    whereabouts::set_activity(work.activity);
    whereabouts::set_step(position.step + 1);
    if (work.interruptions != nullptr) work.interruptions->begin_step();
    Batch batch = next_batch(work, loader, position);
    const double rate = work.schedule.at(position.step);
    const std::string where = fmt::format("{}, step {}", work.title, step + 1);
    const std::int64_t count = batch.global_count;
    std::int64_t trained = count;
    if (work.dropout == nullptr) {
      work.learner.step(batch, rate, where);
      if (work.history != nullptr) work.history->note(batch.ids, work.learner.last_right());
    } else {
      const BatchPlace place{.epoch = position.epoch, .batch = step, .is_last = step + 1 == steps};
      trained = work.dropout->step(work.learner, *loader, std::move(batch), place, rate, where);
    }
    ++position.step;
    position.order_position += work.source != nullptr ? experiment.global_batch : count;
    position.examples += trained;
    if (work.source != nullptr) work.source->stepped(position);
    check_parameters(work, job, config.distributed.hash_interval, position.step);
    progress.step(count, progress.will_show() ? std::optional<double>(work.learner.last_loss()) : std::nullopt);
    if (work.interruptions == nullptr) continue;
    const auto due = work.interruptions->end_step();
    if (due.stop_signal != 0) throw RunStopped(due.stop_signal);
    // The end of an epoch has a checkpoint of its own, and its evaluation first.
    if (due.save && work.save && step + 1 < steps) work.save();
  }
  position.step = first_step + work.steps;
  whereabouts::set_step(0);
  progress.finish();
  work.learner.settle();
  if (work.history != nullptr) work.history->end_epoch(*job.communicator);
}

}  // namespace sage
