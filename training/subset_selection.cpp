#include "training/subset_selection.h"

#include <algorithm>

#include "core/log.h"
#include "selection/registry.h"
#include "training/learner.h"
#include "training/model_gradient_source.h"
#include "training/progress.h"
#include "training/schedule.h"

namespace sage {
namespace {

/// Both ascending.
std::int64_t count_common(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  return std::count_if(a.begin(), a.end(), [&](std::int64_t id) { return std::binary_search(b.begin(), b.end(), id); });
}

SubsetRecord to_record(const SelectionResult& result, const Experiment& experiment) {
  const SelectionConfig& config = experiment.config.selection;
  SubsetRecord record;
  record.method = result.method;
  const bool scores = find_selection_method(config.method).needs_gradients;
  record.scoring = scores ? config.scoring : "";
  record.keep = scores ? config.keep : "";
  record.fraction = config.fraction;
  record.candidates = static_cast<std::int64_t>(experiment.candidates.size());
  record.ids = result.kept;
  record.class_histogram = result.class_histogram;
  record.class_names = experiment.dataset.class_names;
  if (const auto& certificate = result.certificate) {
    record.sketch_rows = certificate->rows;
    record.certificate = certificate->error_bound;
    record.relative_certificate = certificate->relative_error;
    record.notes.push_back(fmt::format("sketch: {} of size {}{}, {} logical shards; scores {}", certificate->sketch,
                                       certificate->size, certificate->exact ? " (exact: nothing was lost)" : "",
                                       certificate->shards, result.scores_kept));
  }
  if (result.non_finite > 0) {
    record.notes.push_back(
        fmt::format("{} gradients were not finite and were left out of the sketch", result.non_finite));
  }
  record.phase_seconds = {{"sketch", result.seconds.sketch},
                          {"merge", result.seconds.merge},
                          {"score", result.seconds.score},
                          {"choose", result.seconds.choose}};
  record.noise_rate = result.estimated_noise;
  record.bytes_sent = result.bytes_sent;
  record.doubtful_ids = result.doubtful;
  record.without_direction = result.degenerate;
  record.notes.insert(record.notes.end(), result.warnings.begin(), result.warnings.end());
  return record;
}

void log_choice(const SubsetRecord& record, const Experiment& experiment) {
  const auto [smallest, largest] = std::minmax_element(record.class_histogram.begin(), record.class_histogram.end());
  std::string text = fmt::format("selection {} ({}{}): kept {} of {} in {:.2f} s, {} to {} of each class", record.round,
                                 record.method, record.keep.empty() ? "" : ", " + record.keep, record.ids.size(),
                                 record.candidates, record.seconds, *smallest, *largest);
  if (record.relative_certificate) text += fmt::format(", error bound {:.2g} lambda_1", *record.relative_certificate);
  if (record.overlap) text += fmt::format(", {:.1f} % as before", 100 * *record.overlap);
  if (record.noise_rate) text += fmt::format(", estimated wrong labels {:.1f} %", 100 * *record.noise_rate);
  if (!experiment.corrupted.empty()) {
    text += fmt::format(", wrong labels kept {}", *record.wrong_labels_kept);
    if (!record.doubtful_ids.empty()) {
      text +=
          fmt::format(", {} of {} doubted labels are wrong", *record.wrong_labels_doubted, record.doubtful_ids.size());
    }
  }
  log::info("{}", text);
}

}  // namespace

SubsetChoice SubsetSelection::choose(Classifier& current, std::int64_t round, std::int64_t completed_epochs,
                                     std::span<const std::int64_t> previous) {
  const Stopwatch clock;
  const Config& config = experiment_.config;
  const bool scores = find_selection_method(config.selection.method).needs_gradients;
  const bool by_proxy = scores && config.selection.scorer == "proxy";
  double proxy_seconds = 0.0;
  if (by_proxy && !proxy_) {
    train_proxy();
    proxy_seconds = clock.seconds();
  }
  Classifier& scorer = by_proxy ? *proxy_ : current;
  const bool was_training = scorer.is_training();
  scorer.eval();
  std::unique_ptr<ModelGradientSource> source;
  job_.communicator->all_or_none([&] {
    if (!scores) return;
    source = std::make_unique<ModelGradientSource>(scorer, *experiment_.train_images, experiment_.labels,
                                                   config.selection, config.training.label_smoothing);
  });
  SubsetChoice choice;
  for (const auto id : experiment_.candidates) {
    choice.scores.labels.push_back(experiment_.labels[static_cast<std::size_t>(id)]);
  }
  const SelectionResult result = select_examples({.config = config.selection,
                                                  .seed = config.seed,
                                                  .round = static_cast<std::uint64_t>(round),
                                                  .ids = experiment_.candidates,
                                                  .labels = choice.scores.labels,
                                                  .class_count = experiment_.dataset.class_count,
                                                  .source = source.get(),
                                                  .communicator = *job_.communicator});
  scorer.train(was_training);

  SubsetRecord& record = choice.record = to_record(result, experiment_);
  record.epoch = completed_epochs;
  record.round = round;
  if (proxy_seconds > 0) record.phase_seconds["proxy"] = proxy_seconds;
  if (!previous.empty()) record.overlap = subset_overlap(record.ids, previous);
  if (!experiment_.corrupted.empty()) {
    record.wrong_labels_kept = count_common(record.ids, experiment_.corrupted);
    record.wrong_labels_doubted = count_common(record.doubtful_ids, experiment_.corrupted);
  }
  choice.scores.ids = experiment_.candidates;
  choice.scores.scores = result.scores;
  record.seconds = clock.seconds();
  for (const auto& warning : result.warnings) log::warning("{}", warning);
  log_choice(record, experiment_);
  return choice;
}

void SubsetSelection::train_proxy() {
  const Config& config = experiment_.config;
  const std::string name = config.selection.proxy.model.empty() ? config.model.name : config.selection.proxy.model;
  const std::uint64_t seed = derived_seed(config.seed, "proxy");
  proxy_ = make_network(experiment_, name, seed, *job_.statistics);
  PhaseTimer timer;  // its own: the phases of training stay those of training
  Learner learner(experiment_, proxy_, *job_.communicator, timer);
  TrainingConfig training = config.training;
  training.steps = config.selection.proxy.steps;
  const std::int64_t steps_per_epoch = experiment_.steps_of(static_cast<std::int64_t>(experiment_.candidates.size()));
  const LearningRateSchedule schedule(training, steps_per_epoch);
  Progress progress("proxy", training.steps, config.output.log_interval);
  std::int64_t step = 0, examples = 0;
  for (std::int64_t epoch = 0; step < training.steps; ++epoch) {
    Loader loader(*experiment_.train_images, experiment_.labels,
                  EpochPlan(experiment_.candidates, experiment_.global_batch, job_.communicator->rank(),
                            job_.communicator->size(), seed, epoch),
                  {config.data.augment.crop, config.data.augment.flip}, config.data.workers);
    for (auto batch = loader.next(); batch && step < training.steps; batch = loader.next()) {
      learner.step(*batch, schedule.at(step), fmt::format("proxy, step {}", step + 1));
      ++step;
      examples += batch->global_count;
      progress.step(batch->global_count,
                    progress.will_show() ? std::optional<double>(learner.last_loss()) : std::nullopt);
    }
  }
  progress.finish();
  learner.settle();
  examples_seen_ = examples;
  const EpochTotals totals = learner.take_totals();
  log::info("proxy {}: {} steps on all data, mean loss {:.4f}, accuracy {:.2f} %", name, step, totals.loss,
            100 * totals.accuracy);
}

}  // namespace sage
