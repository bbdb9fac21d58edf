#include "training/trainer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/log.h"
#include "core/whereabouts.h"
#include "models/weights.h"
#include "selection/quota.h"
#include "training/epoch.h"
#include "training/evaluation.h"
#include "training/learner_state.h"
#include "training/resume.h"
#include "training/selection_schedule.h"

namespace sage {
namespace {

std::vector<std::int64_t> planned_steps(const Experiment& experiment) {
  const auto candidates = static_cast<std::int64_t>(experiment.candidates.size());
  if (is_crest(experiment.config.selection)) {
    const std::int64_t steps = plan_crest(experiment).steps_per_epoch;
    return steps_of_epochs(experiment.config, steps, steps);
  }
  if (!selects_at_all(experiment.config.selection)) {
    return steps_of_epochs(experiment.config, experiment.steps_of(candidates), 0);
  }
  return steps_of_epochs(experiment.config, experiment.steps_of(candidates),
                         experiment.steps_of(subset_size(experiment.config.selection.fraction, candidates)));
}

}  // namespace

Trainer::Trainer(const Experiment& experiment, Job& job, RunFolder* folder, std::optional<TrainingState> resume_from,
                 std::function<int()> stop)
    : experiment_(experiment),
      config_(experiment.config),
      job_(job),
      folder_(folder),
      steps_of_epoch_(planned_steps(experiment)),
      schedule_(with_scaled_rate(config_.training, job.communicator->size()), steps_of_epoch_),
      interruptions_(job.runtime, config_, std::move(stop)),
      selection_(experiment, job, &interruptions_),
      subset_(experiment.candidates) {
  const bool resumes = resume_from.has_value();
  start_learner(config_.seed, /*restored_next=*/resumes);
  if (is_crest(config_.selection)) {
    crest_ = std::make_unique<Crest>(experiment, job, *learner_, [this](const CrestUpdate& update) {
      if (metrics_) metrics_->add(update);
    });
  }
  if (resumes) restore(std::move(*resume_from));
  job_.communicator->all_or_none([&] {
    if (folder_ == nullptr) return;
    metrics_ = resumes
                   ? Metrics::resume(folder_->path(), position_.epoch, selection_round_, crest_ ? crest_->updates() : 0)
                   : Metrics(folder_->path());
    for (const auto& [what, version] : all_versions()) metrics_->set_version(what, version);
    metrics_->set_class_names(experiment_.dataset.class_names);
    metrics_->set_summary("corrupted_labels", static_cast<double>(experiment_.corrupted.size()));
    metrics_->set_summary("unreadable_images", static_cast<double>(experiment_.dataset.train.unreadable.size() +
                                                                   experiment_.dataset.test.unreadable.size()));
    if (config_.output.tensorboard) {
      const auto resumed_at = resumes ? std::optional(position_.epoch + 1) : std::nullopt;
      train_events_ = std::make_unique<EventWriter>(folder_->train_events(), resumed_at);
      validation_events_ = std::make_unique<EventWriter>(folder_->validation_events(), resumed_at);
    }
    writer_ = std::make_unique<CheckpointWriter>(folder_->checkpoints(), config_.output.keep_checkpoints,
                                                 [](const auto& path) { log::info("saved {}", path.string()); });
  });
}

Trainer::~Trainer() = default;

void Trainer::start_learner(std::uint64_t seed, bool restored_next) {
  learner_.reset();  // its reduction ends before the next one starts
  auto network = restored_next ? make_network(experiment_, config_.model.name, seed, *job_.statistics)
                               : make_starting_network(experiment_, seed, *job_.communicator, *job_.statistics);
  learner_ = std::make_unique<Learner>(experiment_, std::move(network), *job_.communicator, job_.timer);
  dropout_.reset();
  if (config_.dropout.mode != "none") dropout_.emplace(experiment_, *job_.communicator, job_.timer, epochs());
}

int Trainer::run() {
  try {
    return run_or_stop();
  } catch (const TrainingError& error) {
    // Thrown on ALL ranks: the steps that were not finite were left out, so what there is is worth keeping. A save that
    // came upon them, after a stop too, is made again: a second one finds none.
    try {
      save_checkpoint();
      end();
    } catch (...) {
      log::warning("{}", error.what());  // the cause of the end, beside what is said of the disk
      throw;
    }
    if (folder_ != nullptr) {
      log::info("ended {}; everything is saved. To go on with other settings: sage train --resume {} training.lr=...",
                saved_place_, folder_->path().string());
    }
    throw;
  }
}

int Trainer::run_or_stop() {
  try {
    run_epochs();
    if (folder_ != nullptr) metrics_->set_summary("finished", "yes");  // by which a complete run is known
    end();
    log_end();
    return 0;
  } catch (const RunStopped& stopped) {
    // ALL ranks are here, and stand at the same place. On a GPU the save looks at the last steps, which may throw.
    save_checkpoint();
    end();
    if (folder_ != nullptr) {
      log::info("stopped by SIG{} {}; everything is saved. To go on: sage train --resume {}",
                sigabbrev_np(stopped.signal()), saved_place_, folder_->path().string());
    }
    return stopped.signal();
  }
}

void Trainer::run_epochs() {
  if (position_.epoch >= epochs()) log::info("nothing left to do: {} of {} epochs are done", position_.epoch, epochs());
  epoch_clock_.restart();
  while (position_.epoch < epochs()) {
    job_.timer.clear();
    if (selects_before(config_.selection, position_.epoch) && selection_epoch_ != position_.epoch) select();
    train();
    evaluate_and_record();
    if (position_.epoch == epochs()) return;
    if (const int signal = interruptions_.agree_to_stop(); signal != 0) throw RunStopped(signal);
  }
}

void Trainer::select() {
  const auto scope = job_.timer.measure_with_memory("selection");
  const std::vector<std::int64_t> previous = is_subset_ ? subset_ : std::vector<std::int64_t>{};
  const SubsetChoice choice = selection_.choose(learner_->network(), selection_round_ + 1, position_.epoch, previous,
                                                [this] { save_checkpoint(); });
  ++selection_round_;
  selection_epoch_ = position_.epoch;
  subset_ = choice.record.ids;
  subset_weights_ = choice.record.weights;
  is_subset_ = true;
  job_.communicator->all_or_none([&] {
    if (folder_ == nullptr) return;
    folder_->write_subset(choice.record, choice.table());
    metrics_->add(summarize(choice.record));
    metrics_->write();  // before a checkpoint that knows of this selection
    write_events(choice.record);
  });
  // Once: a network that starts anew at every refresh would never be trained to the end of its schedule.
  if (config_.training.reinitialize_after_selection && selection_round_ == 1) start_learner(config_.seed);
}

void Trainer::train() {
  train_epoch(experiment_, job_,
              {.learner = *learner_,
               .schedule = schedule_,
               .timer = job_.timer,
               .ids = subset_,
               .weights = subset_weights_,
               .seed = config_.seed,
               .steps = steps_of_epoch_[static_cast<std::size_t>(position_.epoch)],
               .activity = "training",
               .title = fmt::format("epoch {}/{}", position_.epoch + 1, epochs()),
               .interruptions = &interruptions_,
               .history = selection_.history_of_training(),
               .dropout = dropout_ ? &*dropout_ : nullptr,
               .save = [this] { save_checkpoint(); },
               .source = position_.epoch > 0 ? crest_.get() : nullptr},
              position_);
}

Evaluation Trainer::evaluate_on(const ImageStore& images, std::span<const std::int64_t> labels,
                                std::span<const std::int64_t> ids) {
  const std::int64_t batch = std::max<std::int64_t>(1, 512 / job_.communicator->size());
  return evaluate(learner_->network(), images, labels, ids, batch, *job_.communicator, config_.training.precision).mean;
}

void Trainer::evaluate_and_record() {
  whereabouts::set_activity("evaluation");
  const double training_seconds = epoch_seconds();
  // Phases are those of this process: what is set against them is too.
  const double own_seconds = epoch_clock_.seconds();
  EpochRecord record;
  record.epoch = position_.epoch + 1;
  record.steps = position_.step;
  record.examples_seen = position_.examples + selection_.examples_seen();
  record.learning_rate = schedule_.at(position_.step - 1);
  const EpochTotals totals = learner_->take_totals();
  if (totals.examples > 0) {
    record.train = {totals.loss, totals.accuracy};
  } else {  // dropout kept nothing
    record.train = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  }
  record.effective_epochs =
      static_cast<double>(record.examples_seen) / static_cast<double>(experiment_.candidates.size());
  if (dropout_) {
    record.dropout = dropout_->end_epoch(position_.epoch);
    record.dropout->training_seconds = own_seconds - job_.timer.seconds("selection");
    record.dropout->earlier_seconds = resumed_among_steps_ ? earlier_seconds_ : 0.0;
  }
  const bool is_last = record.epoch == epochs();
  if (is_last || record.epoch % config_.training.evaluate_interval == 0) {
    const auto scope = job_.timer.measure_with_memory("evaluation");
    const std::vector<std::int64_t> test_ids = experiment_.dataset.test.readable_ids();
    if (!test_ids.empty()) {
      record.test = evaluate_on(*experiment_.test_images, experiment_.dataset.test.labels, test_ids);
    }
    if (!experiment_.validation.empty()) {
      record.validation = evaluate_on(*experiment_.train_images, experiment_.labels, experiment_.validation);
    }
  }
  const auto& evaluation = judged(record);
  const bool is_best = evaluation && (!best_accuracy_ || evaluation->accuracy > *best_accuracy_);
  if (is_best) {
    best_accuracy_ = evaluation->accuracy;
    best_epoch_ = record.epoch;
  }
  if (crest_) record.crest = crest_->end_epoch(position_, own_seconds, record.test || record.validation);
  record.ranks = gather_use();
  record.seconds = epoch_seconds();
  // Before the checkpoint that knows of this epoch. One rank writes; if it cannot, all end.
  job_.communicator->all_or_none([&] {
    if (folder_ == nullptr) return;
    writer_->check();
    log_epoch(record, static_cast<double>(totals.examples) / std::max(training_seconds, 1e-9));
    write_events(record);
    metrics_->add(record);
  });
  ++position_.epoch;
  position_.order_position = 0;
  earlier_seconds_ = 0.0;
  resumed_among_steps_ = false;
  epoch_clock_.restart();
  const bool is_due = is_last || record.epoch % config_.output.save_interval == 0 || interruptions_.is_due();
  if (is_due || is_best) save({.checkpoint = is_due, .best_model = is_best});
}

std::vector<RankUse> Trainer::gather_use() {
  const auto texts = job_.communicator->all_gather_strings(phases_to_json(job_.timer.phases()));
  const double cpu_seconds = process_cpu_seconds();
  const auto microseconds = static_cast<std::int64_t>(1e6 * (cpu_seconds - recorded_cpu_seconds_));
  recorded_cpu_seconds_ = cpu_seconds;
  const at::Tensor peaks =
      at::tensor({job_.timer.host_peak_bytes(), job_.timer.device_peak_bytes(), microseconds}, at::kLong)
          .to(job_.communicator->device())
          .unsqueeze(0);
  const at::Tensor all_peaks = job_.communicator->all_gather_rows(peaks).cpu();
  std::vector<RankUse> use;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const at::Tensor peak = all_peaks[static_cast<std::int64_t>(rank)];
    use.push_back({static_cast<int>(rank), phases_from_json(texts[rank]), peak[0].item<std::int64_t>(),
                   peak[1].item<std::int64_t>(), 1e-6 * static_cast<double>(peak[2].item<std::int64_t>())});
  }
  return use;
}

TrainingState Trainer::state(HostCopies& copies, bool whole) {
  TrainingState state;
  state.model = config_.model.name;
  state.dataset = config_.data.name;
  state.class_count = experiment_.dataset.class_count;
  state.config_json = to_json(config_);
  state.seed = config_.seed;
  state.global_batch = experiment_.global_batch;
  state.position = position_;
  state.selection_round = selection_round_;
  state.selection_epoch = selection_epoch_;
  state.seconds = epoch_seconds();
  state.best_accuracy = best_accuracy_;
  state.best_epoch = best_epoch_;
  if (is_subset_) state.subset_ids = subset_;
  state.subset_weights = subset_weights_;
  if (whole) {
    state.learner = take_state(*learner_, experiment_, job_, copies);
    selection_.add_to(state, copies);
    if (crest_) state.crest = crest_->state(copies);
    if (dropout_ && job_.is_lead()) state.dropout = dropout_->state();
  } else if (job_.is_lead()) {
    state.learner.model = copies.copy(named_state(learner_->network()));
  }
  return state;
}

/// ALL ranks: until rank 0 has written what is under way. In slices, so that nobody's deadline passes on a slow disk.
/// One that takes as long as a deadline is given up: EnvironmentError on rank 0, PeerFailed on the others.
void Trainer::wait_for_writer() {
  constexpr std::int64_t done = 0, busy = 1, stuck = 2;
  const std::chrono::milliseconds deadline = job_.runtime.deadline();
  const auto slice = std::min<std::chrono::milliseconds>(std::chrono::seconds(1), deadline / 4);
  const double limit = std::chrono::duration<double>(deadline).count(), patience = std::min(10.0, limit / 2);
  const Stopwatch waited;
  bool has_warned = false;
  at::Tensor vote = at::zeros({1}, at::TensorOptions(at::kLong).device(job_.communicator->device()));
  std::int64_t agreed = busy;
  while (agreed == busy) {
    const bool is_busy = writer_ && writer_->is_busy_after(slice);
    const double seconds = waited.seconds();
    if (is_busy && seconds >= patience && !has_warned) {
      log::warning("waiting for the disk: {} is still being written; after {:g} s the run is given up",
                   writer_->files(), limit);
      has_warned = true;
    }
    vote.fill_(!is_busy ? done : seconds < limit ? busy : stuck);
    job_.communicator->all_reduce_max(vote);
    agreed = vote.item<std::int64_t>();
  }
  if (agreed == done) return;
  job_.communicator->all_or_none([&] {
    if (!writer_) return;
    throw EnvironmentError(fmt::format(
        "{}: not written within {:g} s (distributed.deadline_seconds): the disk does not answer, or is very "
        "slow; `sage train --resume` goes on from the checkpoint before",
        writer_->files(), limit));
  });
}

void Trainer::save(What what) {
  const auto scope = job_.timer.measure("saving");
  whereabouts::set_activity("saving");
  wait_for_writer();  // before the copies: two at a time would be twice the memory
  CheckpointOrder order;
  order.checkpoint = what.checkpoint;
  order.best_model = what.best_model;
  order.state = state(order.copies, what.checkpoint);
  if (what.checkpoint) saved_place_ = describe(order.state, config_.selection.proxy.steps);
  job_.communicator->all_or_none([&] {
    if (metrics_ && crest_) metrics_->write();  // before a checkpoint that knows of these updates
    if (writer_) writer_->submit(std::move(order));
  });
  if (what.checkpoint) interruptions_.saved();
}

void Trainer::restore(TrainingState from) {
  restore_state(*learner_, from.learner, job_);
  job_.communicator->all_or_none([&] {
    // A run may take dropout up, or leave it, between two epochs.
    if (dropout_ && !from.dropout.empty()) dropout_->load_state(from.dropout);
  });
  position_ = from.position;
  first_step_ = from.position.step;
  selection_round_ = from.selection_round;
  selection_epoch_ = from.selection_epoch;
  earlier_seconds_ = from.seconds;
  resumed_among_steps_ = from.position.order_position > 0;
  best_accuracy_ = from.best_accuracy;
  best_epoch_ = from.best_epoch;
  selection_.restore(from);
  if (crest_) {
    job_.communicator->all_or_none([&] {
      if (!from.crest) throw CheckpointError("the checkpoint holds no state of crest: it is of a run without it");
      crest_->restore(*from.crest);
    });
  }
  if (from.subset_ids) {
    subset_ = std::move(*from.subset_ids);
    subset_weights_ = std::move(from.subset_weights);
    is_subset_ = true;
  }
}

void Trainer::end() {
  wait_for_writer();
  job_.communicator->all_or_none([&] {
    if (folder_ == nullptr) return;
    writer_->finish();
    metrics_->write();
  });
}

}  // namespace sage
