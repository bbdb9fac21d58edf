// The figures of a run, epoch by epoch, in metrics.json (all) and metrics.csv (one row an epoch). Both are written
// whole at each epoch, so that they can be read at any moment and survive a crash. Rank 0 only.
#pragma once
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "training/crest/crest_record.h"
#include "training/dropout/record.h"
#include "training/resources.h"

namespace sage {

struct Evaluation {
  double loss = 0.0;      ///< mean over examples
  double accuracy = 0.0;  ///< in [0, 1]
  /// Mean F1 over the classes that occur among labels or predictions; NaN where it was not measured.
  double f1_macro = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> class_accuracy = {};  ///< per class, NaN for one without examples; empty where not measured
};

/// What one rank used in an epoch.
struct RankUse {
  int rank = 0;
  std::map<std::string, PhaseUse, std::less<>> phases;
  std::int64_t host_peak_bytes = 0;  ///< of the process so far
  std::int64_t device_peak_bytes = 0;
  double cpu_seconds = 0.0;  ///< of all threads of the process since the record before, or its start
};

struct EpochRecord {
  std::int64_t epoch = 0;          ///< completed epochs, this one included: the first record has 1
  std::int64_t steps = 0;          ///< optimizer steps so far
  std::int64_t examples_seen = 0;  ///< examples back-propagated so far, over all ranks
  double effective_epochs = 0.0;   ///< examples_seen / examples that may be trained on
  double learning_rate = 0.0;      ///< of the last step
  double seconds = 0.0;            ///< of this epoch: training, selection before it and evaluation after it
  Evaluation train;                ///< over the batches as they were trained on (augmented, before each update)
  std::optional<Evaluation> validation, test;
  std::optional<DropoutRecord> dropout;
  std::vector<RankUse> ranks;
  std::optional<CrestEpoch> crest;  ///< selection.method crest
};

/// One selection, in short; the whole is in subset_indices.
struct SelectionSummary {
  std::int64_t epoch = 0;  ///< completed epochs when it was made
  std::int64_t round = 0;  ///< 1, 2, ...
  std::string method;
  std::int64_t candidates = 0, kept = 0;
  double seconds = 0.0;
  std::map<std::string, double> phase_seconds;
  std::optional<double> relative_certificate;     ///< Delta / lambda_1
  std::optional<double> overlap;                  ///< share of the kept that was kept before
  std::optional<double> noise_rate;               ///< estimated share of wrong labels
  std::optional<std::int64_t> wrong_labels_kept;  ///< kept examples whose label was made wrong; where any was
  std::optional<double> wrong_labels_auroc, wrong_labels_precision;  ///< as in SubsetRecord
};

/// What a run is judged by: the validation split where there is one, else the test split.
inline const std::optional<Evaluation>& judged(const EpochRecord& record) {
  return record.validation ? record.validation : record.test;
}

class Metrics {
 public:
  /// For files in `folder` (the run folder). Writes nothing yet.
  explicit Metrics(std::filesystem::path folder);
  /// Reads what an earlier part of the run left, up to and with epoch `last_epoch` and selection `last_round` (of
  /// crest: the updates up to and with `last_update`); later records belong to work that is done again and are dropped.
  /// Starts empty, without complaint, if there is no metrics.json. Throws CheckpointError naming the file if it is
  /// damaged.
  static Metrics resume(std::filesystem::path folder, std::int64_t last_epoch, std::int64_t last_round,
                        std::int64_t last_update = std::numeric_limits<std::int64_t>::max());

  /// Adds a record and writes both files. Epochs must ascend. Throws EnvironmentError if they cannot be written.
  void add(EpochRecord record);
  /// Adds a record; it is written with the next epoch, or by write().
  void add(SelectionSummary record);
  void add(CrestUpdate record);
  /// Free entries of the summary and of "versions".
  void set_summary(const std::string& key, double value) { summary_numbers_[key] = value; }
  void set_summary(const std::string& key, const std::string& value) { summary_texts_[key] = value; }
  void set_class_names(std::vector<std::string> names) { class_names_ = std::move(names); }
  void set_version(const std::string& what, const std::string& version) { versions_[what] = version; }
  void write() const;

  const std::vector<EpochRecord>& epochs() const { return epochs_; }
  const std::vector<SelectionSummary>& selections() const { return selections_; }
  const std::vector<CrestUpdate>& crest_updates() const { return crest_updates_; }
  /// Sums over the epochs recorded (a resumed run's earlier part included).
  double total_seconds() const;
  double selection_seconds() const;
  /// CPU time of all ranks; less than all where an epoch was begun in a process that ended.
  double cpu_seconds() const;
  /// Highest validation accuracy, or test accuracy where there is no validation; the first epoch among equals.
  const EpochRecord* best() const;

 private:
  std::string to_json() const;
  std::string to_csv() const;
  std::filesystem::path folder_;
  std::vector<EpochRecord> epochs_;
  std::vector<SelectionSummary> selections_;
  std::vector<CrestUpdate> crest_updates_;
  std::map<std::string, double> summary_numbers_;
  std::map<std::string, std::string> summary_texts_, versions_;
  std::vector<std::string> class_names_;
};

}  // namespace sage
