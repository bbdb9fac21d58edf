// The main loop: select, train on what was selected, evaluate, record, save.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "training/checkpoint.h"
#include "training/experiment.h"
#include "training/job.h"
#include "training/learner.h"
#include "training/metrics.h"
#include "training/run_folder.h"
#include "training/schedule.h"
#include "training/subset_selection.h"
#include "training/tensorboard.h"

namespace sage {

class Trainer {
 public:
  /// ALL ranks. `folder` on rank 0 only (null elsewhere). `resume_from`: go on behind that state.
  Trainer(const Experiment& experiment, Job& job, RunFolder* folder, const TrainingState* resume_from);
  ~Trainer();

  /// ALL ranks. Runs the epochs that are left.
  void run();

 private:
  void select(std::int64_t epoch);
  void start_learner(std::uint64_t seed);
  void train_epoch(std::int64_t epoch);
  void evaluate_and_record(std::int64_t epoch, double seconds);
  void save(std::int64_t completed_epochs, bool is_best);
  void restore(const TrainingState& state);
  TrainingState state(std::int64_t completed_epochs) const;
  std::vector<RankUse> gather_use();
  void write_events(const EpochRecord& record);
  void log_epoch(const EpochRecord& record, double examples_per_second) const;
  void log_end() const;

  const Experiment& experiment_;
  const Config& config_;
  Job& job_;
  RunFolder* folder_;
  std::vector<std::int64_t> steps_of_epoch_;
  LearningRateSchedule schedule_;
  SubsetSelection selection_;
  std::unique_ptr<Learner> learner_;
  std::optional<Metrics> metrics_;  // rank 0
  std::unique_ptr<EventWriter> train_events_, validation_events_;
  std::vector<std::int64_t> subset_;  // what is trained on, ascending
  bool is_subset_ = false;            // false: all candidates
  std::int64_t first_epoch_ = 0, first_step_ = 0, step_ = 0, examples_seen_ = 0, selection_round_ = 0;
  std::optional<double> best_accuracy_;
  std::int64_t best_epoch_ = 0;
  double last_rate_ = 0.0;
  Stopwatch run_clock_;
};

}  // namespace sage
