#include "training/epoch.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/whereabouts.h"
#include "data/loader.h"
#include "distributed/parameter_hash.h"
#include "training/progress.h"

namespace sage {
namespace {

/// The batches of the epoch that are left.
Loader make_loader(const Experiment& experiment, const Job& job, const EpochWork& work,
                   std::span<const std::int64_t> ids, const TrainingPosition& position) {
  const DataConfig& config = experiment.config.data;
  EpochPlan plan(ids, experiment.global_batch, job.communicator->rank(), job.communicator->size(), work.seed,
                 position.epoch);
  plan.skip(position.order_position);
  return Loader(*experiment.train_images, experiment.labels, std::move(plan),
                {config.augment.crop, config.augment.flip}, config.workers, config.prefetch);
}

void check_parameters(const EpochWork& work, const Job& job, std::int64_t interval, std::int64_t step) {
  if (interval == 0 || step % interval != 0) return;
  const auto scope = work.timer.measure("parameter_hash");
  check_same_parameters(work.learner.network().named_parameters(), *job.communicator);
}

}  // namespace

void train_epoch(const Experiment& experiment, Job& job, const EpochWork& work, TrainingPosition& position) {
  const Config& config = experiment.config;
  const std::int64_t done = experiment.steps_of(position.order_position);
  const std::int64_t first_step = position.step - done;
  const auto ids = work.dropout != nullptr ? work.dropout->begin_epoch(work.ids, position.epoch) : work.ids;
  Loader loader = make_loader(experiment, job, work, ids, position);
  const std::int64_t steps = ids.size() < work.ids.size() ? std::min(work.steps, done + loader.steps()) : work.steps;
  if (done + loader.steps() < steps) {
    throw ConfigError(
        fmt::format("{}: the subset of {} examples makes {} steps where the configuration plans {}: it was chosen "
                    "with another selection.fraction; give the value that the run was started with",
                    work.title, ids.size(), done + loader.steps(), steps));
  }
  Progress progress(work.title, steps - done, config.output.log_interval);
  for (std::int64_t step = done; step < steps; ++step) {
    whereabouts::set_activity(work.activity);
    whereabouts::set_step(position.step + 1);
    if (work.interruptions != nullptr) work.interruptions->begin_step();
    std::optional<Batch> batch;
    {
      const auto scope = work.timer.measure("data");
      batch = loader.next();
    }
    const double rate = work.schedule.at(position.step);
    const std::string where = fmt::format("{}, step {}", work.title, step + 1);
    const std::int64_t count = batch->global_count;
    std::int64_t trained = count;
    if (work.dropout == nullptr) {
      work.learner.step(*batch, rate, where);
    } else {
      const BatchPlace place{.epoch = position.epoch, .batch = step, .is_last = step + 1 == steps};
      trained = work.dropout->step(work.learner, loader, std::move(*batch), place, rate, where);
    }
    ++position.step;
    position.order_position += count;
    position.examples += trained;
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
}

}  // namespace sage
