// What a run says of itself while it goes on: lines of its log and TensorBoard events.
#include <fmt/format.h>

#include <algorithm>

#include "core/log.h"
#include "training/montage.h"
#include "training/progress.h"
#include "training/trainer.h"

namespace sage {

void Trainer::log_epoch(const EpochRecord& record, double examples_per_second) const {
  const auto left = static_cast<double>(schedule_.total_steps() - position_.step);
  const double seconds_per_step =
      run_clock_.seconds() / static_cast<double>(std::max<std::int64_t>(1, position_.step - first_step_));
  std::string text = fmt::format("epoch {}/{}  loss {:.4f}  train accuracy {:.2f} %", record.epoch,
                                 steps_of_epoch_.size(), record.train.loss, 100 * record.train.accuracy);
  if (record.validation) text += fmt::format("  validation {:.2f} %", 100 * record.validation->accuracy);
  if (record.test) text += fmt::format("  test {:.2f} %", 100 * record.test->accuracy);
  if (const auto& crest = record.crest) {
    text +=
        fmt::format("  {} updates, checks every {} steps, {} dropped", crest->updates, crest->interval, crest->dropped);
  }
  if (record.dropout) {
    text += fmt::format("  kept {:.1f} %", 100 * static_cast<double>(record.dropout->kept) /
                                               std::max(1.0, static_cast<double>(record.dropout->offered)));
  }
  log::info("{}  lr {:.4g}  {} examples/s  {} left", text, record.learning_rate, format_count(examples_per_second),
            format_duration(left * seconds_per_step));
}

void Trainer::write_events(const EpochRecord& record) {
  if (!train_events_) return;
  train_events_->scalar("loss", record.train.loss, record.epoch);
  train_events_->scalar("accuracy", record.train.accuracy, record.epoch);
  train_events_->scalar("learning_rate", record.learning_rate, record.epoch);
  train_events_->scalar("examples_seen", static_cast<double>(record.examples_seen), record.epoch);
  train_events_->scalar("effective_epochs", record.effective_epochs, record.epoch);
  if (record.dropout) write_dropout_events(*record.dropout, record.epoch);
  if (record.crest) {
    for (const auto& [name, value] : scalars_of(*record.crest)) train_events_->scalar(name, value, record.epoch);
  }
  train_events_->flush();
  if (const auto& evaluation = judged(record)) {
    validation_events_->scalar("loss", evaluation->loss, record.epoch);
    validation_events_->scalar("accuracy", evaluation->accuracy, record.epoch);
    validation_events_->scalar("f1_macro", evaluation->f1_macro, record.epoch);
    validation_events_->flush();
  }
}

void Trainer::write_events(const SubsetRecord& record) {
  if (!train_events_) return;
  const auto scalar = [&](const char* tag, std::optional<double> value) {
    if (value) train_events_->scalar(tag, *value, record.epoch);
  };
  scalar("selection/kept", static_cast<double>(record.ids.size()));
  scalar("selection/seconds", record.seconds);
  scalar("selection/overlap", record.overlap);
  scalar("selection/relative_certificate", record.relative_certificate);
  scalar("selection/estimated_wrong_labels", record.noise_rate);
  scalar("selection/wrong_labels_kept", record.wrong_labels_kept);
  scalar("selection/wrong_labels_auroc", record.wrong_labels_auroc);
  train_events_->class_counts("selection/classes", record.class_histogram, record.epoch);
  const auto channels = experiment_.dataset.mean.size();
  if (!record.ids.empty() && (channels == 1 || channels == 3)) {
    constexpr std::size_t pictures = 24;
    constexpr std::int64_t columns = 8;
    train_events_->image("selection/picked",
                         montage(*experiment_.train_images, spread(record.ids, pictures), experiment_.dataset.mean,
                                 experiment_.dataset.deviation, columns),
                         record.epoch);
  }
  train_events_->flush();
}

void Trainer::write_dropout_events(const DropoutRecord& record, std::int64_t epoch) {
  const auto part = [](std::int64_t of, std::int64_t all) {
    return static_cast<double>(of) / std::max(1.0, static_cast<double>(all));
  };
  train_events_->scalar("dropout/kept", part(record.kept, record.offered), epoch);
  for (std::size_t c = 0; c < experiment_.dataset.class_names.size(); ++c) {
    const std::string& name = experiment_.dataset.class_names[c];
    if (!record.kept_of_class.empty()) {
      train_events_->scalar("dropout_kept/" + name, part(record.kept_of_class[c], record.offered_of_class[c]), epoch);
    }
    if (record.difficulty.empty()) continue;
    train_events_->scalar("dropout_difficulty/" + name, record.difficulty[c], epoch);
    train_events_->scalar("dropout_proportion/" + name, record.proportion[c], epoch);
  }
}

void Trainer::log_end() const {
  if (folder_ == nullptr) return;
  if (best_accuracy_) {
    log::info("done in {}; best {} accuracy {:.2f} % after epoch {}", format_duration(metrics_->total_seconds()),
              experiment_.validation.empty() ? "test" : "validation", 100 * *best_accuracy_, best_epoch_);
  }
  log::info("run folder: {}", folder_->path().string());
}

}  // namespace sage
