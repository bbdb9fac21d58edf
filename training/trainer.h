// The main loop: select, train on what was selected, evaluate, record, save; stop in between and go on later.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "training/checkpoint_writer.h"
#include "training/crest/crest.h"
#include "training/dropout/dropout.h"
#include "training/experiment.h"
#include "training/interruptions.h"
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
  /// ALL ranks. `folder` on rank 0 only (null elsewhere). `resume_from`: go on behind that state. `stop` is asked at
  /// each step for the signal that asks this process to stop, or 0.
  Trainer(const Experiment& experiment, Job& job, RunFolder* folder, std::optional<TrainingState> resume_from = {},
          std::function<int()> stop = stop_signal);
  ~Trainer();

  /// ALL ranks. Runs the epochs that are left. Returns 0, or the signal that ended the run before: then a checkpoint of
  /// where it stood was written. An evaluation is never interrupted; a stop waits for its end.
  int run();

 private:
  int run_or_stop();
  void run_epochs();
  void select();
  /// `restored_next`: a checkpoint's weights follow, so that those of model.pretrained need not be there any more.
  void start_learner(std::uint64_t seed, bool restored_next = false);
  void train();
  void evaluate_and_record();
  Evaluation evaluate_on(const ImageStore& images, std::span<const std::int64_t> labels,
                         std::span<const std::int64_t> ids);
  struct What {
    bool checkpoint = true, best_model = false;
  };
  void save(What what);
  void save_checkpoint() { save({.checkpoint = true}); }
  void wait_for_writer();
  void restore(TrainingState state);
  TrainingState state(HostCopies& copies, bool whole);
  std::vector<RankUse> gather_use();
  void write_events(const EpochRecord& record);
  void write_events(const SubsetRecord& record);
  void write_dropout_events(const DropoutRecord& record, std::int64_t epoch);
  void log_epoch(const EpochRecord& record, double examples_per_second) const;
  void end();
  void log_end() const;
  std::int64_t epochs() const { return static_cast<std::int64_t>(steps_of_epoch_.size()); }
  /// Spent in the running epoch, earlier parts of the run included: unlike the timer's phases, which are of this
  /// process alone, so that shares are taken of epoch_clock_.
  double epoch_seconds() const { return earlier_seconds_ + epoch_clock_.seconds(); }

  const Experiment& experiment_;
  const Config& config_;
  Job& job_;
  RunFolder* folder_;
  std::vector<std::int64_t> steps_of_epoch_;
  LearningRateSchedule schedule_;
  Interruptions interruptions_;
  SubsetSelection selection_;
  std::unique_ptr<Learner> learner_;
  std::unique_ptr<Crest> crest_;               // selection.method crest: chooses batches while training
  std::optional<ProgressiveDropout> dropout_;  // where dropout.mode asks for it
  std::optional<Metrics> metrics_;             // rank 0
  std::unique_ptr<EventWriter> train_events_, validation_events_;
  std::unique_ptr<CheckpointWriter> writer_;
  std::vector<std::int64_t> subset_;   // what is trained on, ascending
  std::vector<float> subset_weights_;  // of subset_; empty: all 1
  bool is_subset_ = false;             // false: all candidates
  TrainingPosition position_;
  std::int64_t first_step_ = 0, selection_round_ = 0, selection_epoch_ = -1;
  std::optional<double> best_accuracy_;
  std::int64_t best_epoch_ = 0;
  std::string saved_place_;            // rank 0: of the last checkpoint, for people
  double earlier_seconds_ = 0.0;       // spent in the running epoch by the processes before
  bool resumed_among_steps_ = false;   // and they have made some of its steps
  double recorded_cpu_seconds_ = 0.0;  // of the process, at the last record
  Stopwatch epoch_clock_, run_clock_;
};

}  // namespace sage
