#include "training/trainer.h"

#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "models/weights.h"
#include "selection/quota.h"
#include "training/evaluation.h"
#include "training/progress.h"
#include "training/selection_schedule.h"

namespace sage {
namespace {

std::vector<std::int64_t> planned_steps(const Experiment& experiment) {
  const auto candidates = static_cast<std::int64_t>(experiment.candidates.size());
  if (!selects_at_all(experiment.config.selection)) {
    return steps_of_epochs(experiment.config, experiment.steps_of(candidates), 0);
  }
  return steps_of_epochs(experiment.config, experiment.steps_of(candidates),
                         experiment.steps_of(subset_size(experiment.config.selection.fraction, candidates)));
}

}  // namespace

Trainer::Trainer(const Experiment& experiment, Job& job, RunFolder* folder, const TrainingState* resume_from)
    : experiment_(experiment),
      config_(experiment.config),
      job_(job),
      folder_(folder),
      steps_of_epoch_(planned_steps(experiment)),
      schedule_(config_.training, steps_of_epoch_),
      selection_(experiment, job),
      subset_(experiment.candidates) {
  start_learner(config_.seed);
  if (resume_from != nullptr) restore(*resume_from);
  if (folder_ == nullptr) return;
  metrics_ = resume_from == nullptr ? Metrics(folder_->path())
                                    : Metrics::resume(folder_->path(), first_epoch_, selection_round_);
  for (const auto& [what, version] : all_versions()) metrics_->set_version(what, version);
  metrics_->set_summary("corrupted_labels", static_cast<double>(experiment_.corrupted.size()));
  if (config_.output.tensorboard) {
    const auto resumed = resume_from == nullptr ? std::optional<std::int64_t>{} : first_epoch_ + 1;
    train_events_ = std::make_unique<EventWriter>(folder_->train_events(), resumed);
    validation_events_ = std::make_unique<EventWriter>(folder_->validation_events(), resumed);
  }
}

Trainer::~Trainer() = default;

void Trainer::start_learner(std::uint64_t seed) {
  learner_.reset();  // its reduction ends before the next one starts
  learner_ =
      std::make_unique<Learner>(experiment_, make_network(experiment_, config_.model.name, seed, *job_.statistics),
                                *job_.communicator, job_.timer);
}

void Trainer::run() {
  const auto epochs = static_cast<std::int64_t>(steps_of_epoch_.size());
  if (first_epoch_ >= epochs) log::info("nothing left to do: {} of {} epochs are done", first_epoch_, epochs);
  for (std::int64_t epoch = first_epoch_; epoch < epochs; ++epoch) {
    job_.timer.clear();
    const Stopwatch clock;
    if (selects_before(config_.selection, epoch)) select(epoch);
    train_epoch(epoch);
    evaluate_and_record(epoch, clock.seconds());
  }
  log_end();
}

void Trainer::select(std::int64_t epoch) {
  const auto scope = job_.timer.measure_with_memory("selection");
  const std::vector<std::int64_t> previous = is_subset_ ? subset_ : std::vector<std::int64_t>{};
  const SubsetChoice choice = selection_.choose(learner_->network(), ++selection_round_, epoch, previous);
  subset_ = choice.record.ids;
  is_subset_ = true;
  if (folder_ != nullptr) {
    folder_->write_subset(choice.record, choice.table());
    metrics_->add(summarize(choice.record));
  }
  // Once: a network that starts anew at every refresh would never be trained to the end of its schedule.
  if (config_.training.reinitialize_after_selection && selection_round_ == 1) start_learner(config_.seed);
}

void Trainer::train_epoch(std::int64_t epoch) {
  const std::int64_t steps = steps_of_epoch_[static_cast<std::size_t>(epoch)];
  const AugmentOptions augment{config_.data.augment.crop, config_.data.augment.flip};
  Loader loader(*experiment_.train_images, experiment_.labels,
                EpochPlan(subset_, experiment_.global_batch, job_.communicator->rank(), job_.communicator->size(),
                          config_.seed, epoch),
                augment, config_.data.workers);
  const std::string title = fmt::format("epoch {}/{}", epoch + 1, steps_of_epoch_.size());
  Progress progress(title, steps, config_.output.log_interval);
  for (std::int64_t step = 0; step < steps; ++step) {
    std::optional<Batch> batch;
    {
      const auto scope = job_.timer.measure("data");
      batch = loader.next();
    }
    last_rate_ = schedule_.at(step_);
    learner_->step(*batch, last_rate_, fmt::format("{}, step {}", title, step + 1));
    ++step_;
    examples_seen_ += batch->global_count;
    progress.step(batch->global_count,
                  progress.will_show() ? std::optional<double>(learner_->last_loss()) : std::nullopt);
  }
  progress.finish();
  learner_->settle();
}

void Trainer::evaluate_and_record(std::int64_t epoch, double seconds_so_far) {
  const Stopwatch clock;
  EpochRecord record;
  record.epoch = epoch + 1;
  record.steps = step_;
  record.examples_seen = examples_seen_ + selection_.examples_seen();
  record.learning_rate = last_rate_;
  const EpochTotals totals = learner_->take_totals();
  record.train = {totals.loss, totals.accuracy};
  const bool is_last = record.epoch == static_cast<std::int64_t>(steps_of_epoch_.size());
  const bool evaluates = is_last || record.epoch % config_.training.evaluate_interval == 0;
  if (evaluates) {
    const auto scope = job_.timer.measure_with_memory("evaluation");
    const std::int64_t batch = std::max<std::int64_t>(1, 512 / job_.communicator->size());
    std::vector<std::int64_t> test_ids(static_cast<std::size_t>(experiment_.dataset.test.size()));
    std::iota(test_ids.begin(), test_ids.end(), std::int64_t{0});
    if (!test_ids.empty()) {
      record.test = evaluate(learner_->network(), *experiment_.test_images, experiment_.dataset.test.labels, test_ids,
                             batch, *job_.communicator)
                        .mean;
    }
    if (!experiment_.validation.empty()) {
      record.validation = evaluate(learner_->network(), *experiment_.train_images, experiment_.labels,
                                   experiment_.validation, batch, *job_.communicator)
                              .mean;
    }
  }
  const auto& judged = record.validation ? record.validation : record.test;
  const bool is_best = judged && (!best_accuracy_ || judged->accuracy > *best_accuracy_);
  if (is_best) {
    best_accuracy_ = judged->accuracy;
    best_epoch_ = record.epoch;
  }
  record.ranks = gather_use();
  record.seconds = seconds_so_far + clock.seconds();
  if (folder_ != nullptr) {
    log_epoch(record, static_cast<double>(totals.examples) / std::max(seconds_so_far, 1e-9));
    write_events(record);
    metrics_->add(record);
  }
  const bool saves = is_last || record.epoch % config_.output.save_interval == 0;
  if (saves || is_best) save(record.epoch, is_best);
}

std::vector<RankUse> Trainer::gather_use() {
  const auto texts = job_.communicator->all_gather_strings(phases_to_json(job_.timer.phases()));
  const at::Tensor peaks = at::tensor({job_.timer.host_peak_bytes(), job_.timer.device_peak_bytes()}, at::kLong)
                               .to(job_.communicator->device())
                               .unsqueeze(0);
  const at::Tensor all_peaks = job_.communicator->all_gather_rows(peaks).cpu();
  std::vector<RankUse> use;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    const at::Tensor peak = all_peaks[static_cast<std::int64_t>(rank)];
    use.push_back({static_cast<int>(rank), phases_from_json(texts[rank]), peak[0].item<std::int64_t>(),
                   peak[1].item<std::int64_t>()});
  }
  return use;
}

void Trainer::log_epoch(const EpochRecord& record, double examples_per_second) const {
  const auto left = static_cast<double>(schedule_.total_steps() - step_);
  const double seconds_per_step =
      run_clock_.seconds() / static_cast<double>(std::max<std::int64_t>(1, step_ - first_step_));
  std::string text = fmt::format("epoch {}/{}  loss {:.4f}  train accuracy {:.2f} %", record.epoch,
                                 steps_of_epoch_.size(), record.train.loss, 100 * record.train.accuracy);
  if (record.validation) text += fmt::format("  validation {:.2f} %", 100 * record.validation->accuracy);
  if (record.test) text += fmt::format("  test {:.2f} %", 100 * record.test->accuracy);
  log::info("{}  lr {:.4g}  {} examples/s  {} left", text, record.learning_rate, format_count(examples_per_second),
            format_duration(left * seconds_per_step));
}

void Trainer::write_events(const EpochRecord& record) {
  if (!train_events_) return;
  train_events_->scalar("loss", record.train.loss, record.epoch);
  train_events_->scalar("accuracy", record.train.accuracy, record.epoch);
  train_events_->scalar("learning_rate", record.learning_rate, record.epoch);
  train_events_->scalar("examples_seen", static_cast<double>(record.examples_seen), record.epoch);
  train_events_->flush();
  if (const auto& judged = record.validation ? record.validation : record.test) {
    validation_events_->scalar("loss", judged->loss, record.epoch);
    validation_events_->scalar("accuracy", judged->accuracy, record.epoch);
    validation_events_->flush();
  }
}

TrainingState Trainer::state(std::int64_t completed_epochs) const {
  TrainingState state;
  state.model = config_.model.name;
  state.dataset = config_.data.name;
  state.class_count = experiment_.dataset.class_count;
  state.config_json = to_json(config_);
  state.seed = config_.seed;
  state.global_batch = experiment_.global_batch;
  state.epoch = completed_epochs;
  state.step = step_;
  state.examples_seen = examples_seen_ + selection_.examples_seen();
  state.selection_round = selection_round_;
  state.best_accuracy = best_accuracy_;
  state.best_epoch = best_epoch_;
  state.model_state = copy_state(learner_->network());
  state.optimizer_state = learner_->optimizer().state();
  if (is_subset_) state.subset_ids = subset_;
  state.extra["proxy_examples"] = std::to_string(selection_.examples_seen());
  return state;
}

void Trainer::save(std::int64_t completed_epochs, bool is_best) {
  if (folder_ == nullptr) return;
  const TrainingState now = state(completed_epochs);
  const bool saves = completed_epochs == static_cast<std::int64_t>(steps_of_epoch_.size()) ||
                     completed_epochs % config_.output.save_interval == 0;
  if (saves) write_checkpoint(checkpoint_path(folder_->checkpoints(), completed_epochs), now);
  if (is_best) write_checkpoint(folder_->best_model(), now, CheckpointContent::weights_only);
}

void Trainer::restore(const TrainingState& from) {
  job_.communicator->all_or_none([&] {
    load_state(learner_->network(), from.model_state);
    learner_->optimizer().load_state(from.optimizer_state);
  });
  first_epoch_ = from.epoch;
  step_ = first_step_ = from.step;
  selection_round_ = from.selection_round;
  best_accuracy_ = from.best_accuracy;
  best_epoch_ = from.best_epoch;
  const auto proxy = from.extra.find("proxy_examples");
  const std::int64_t proxy_examples = proxy == from.extra.end() ? 0 : std::stoll(proxy->second);
  selection_.restore_examples_seen(proxy_examples);
  examples_seen_ = from.examples_seen - proxy_examples;
  if (from.subset_ids) {
    subset_ = *from.subset_ids;
    is_subset_ = true;
  }
}

void Trainer::log_end() const {
  if (folder_ == nullptr) return;
  metrics_->write();
  if (best_accuracy_) {
    log::info("done in {}; best {} accuracy {:.2f} % after epoch {}", format_duration(metrics_->total_seconds()),
              experiment_.validation.empty() ? "test" : "validation", 100 * *best_accuracy_, best_epoch_);
  }
  log::info("run folder: {}", folder_->path().string());
}

}  // namespace sage
