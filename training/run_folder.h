// The folder that a run leaves, and its rules. Rank 0 only.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "training/folder_lock.h"
#include "training/metrics.h"
#include "training/resume.h"

namespace sage {

enum class OpenMode {
  fresh,      ///< the folder must be empty or not there
  resume,     ///< goes on in a run folder (or begins one)
  overwrite,  ///< removes what an earlier run made, and nothing else
};

/// Where and by what a run was made; part of config.json.
struct RunInfo {
  std::map<std::string, std::string> versions;  ///< "sage", "libtorch", "cuda", ...
  std::vector<std::string> hosts;               ///< of each rank
  std::vector<std::string> devices;             ///< of each rank
  std::string command_line;
  std::string start_time;  ///< now_text(), taken at the start
};

/// How well labels that were made wrong are found: by a list of suspects, and by the scores of all candidates.
struct Detection {
  std::optional<double> precision, recall;  ///< of the list
  std::optional<double> auroc;              ///< of "score low = wrong"
};

/// One selection, as it is written.
struct SubsetRecord {
  std::int64_t epoch = 0;  ///< completed epochs when it was made
  std::int64_t round = 0;  ///< 1, 2, ...
  std::string method, scoring, keep;
  double fraction = 0.0;
  std::int64_t candidates = 0;
  std::vector<std::int64_t> ids;              ///< the examples KEPT, ascending
  std::vector<float> weights;                 ///< of `ids`: what their losses are multiplied by, mean 1; empty: all 1
  std::vector<std::int64_t> class_histogram;  ///< kept, by class
  std::vector<std::string> class_names;
  std::int64_t sketch_rows = 0;
  std::optional<double> certificate;           ///< Delta: bounds the sketch's error from above
  std::optional<double> relative_certificate;  ///< Delta / lambda_1
  double seconds = 0.0;
  std::map<std::string, double> phase_seconds;
  std::optional<double> overlap;                     ///< subset_overlap with the previous selection; none for the first
  std::optional<double> noise_rate;                  ///< estimated share of wrong labels
  std::optional<std::int64_t> wrong_labels_kept;     ///< kept examples whose label was made wrong; where any was
  std::optional<std::int64_t> wrong_labels_doubted;  ///< doubtful_ids whose label was made wrong; where any was
  /// How well a low score finds wrong labels, where any was made and the method scores: the area under the ROC curve,
  /// and the share of wrong labels among the lowest-scored, as many as there are wrong ones (precision = recall there).
  std::optional<double> wrong_labels_auroc, wrong_labels_precision;
  std::int64_t bytes_sent = 0;             ///< by all ranks, for this selection
  std::vector<std::int64_t> doubtful_ids;  ///< examples whose label is doubted
  std::optional<Detection> doubtful;       ///< how good that list is; where labels were made wrong
  std::map<std::string, Detection> peers;  ///< how good those of others would be, as long as that one
  std::int64_t without_direction = 0;      ///< examples whose projected gradient was zero or not finite
  std::vector<std::string> notes;          ///< what a reader should know (a fallback, an empty class)
};

/// Scores of all candidates, equally long; row i is example ids[i].
struct ScoreTable {
  std::vector<std::int64_t> ids, labels;
  std::vector<float> scores;
};

/// Share of `ids` that is also in `previous` (both ascending); 0 if `ids` is empty.
double subset_overlap(std::span<const std::int64_t> ids, std::span<const std::int64_t> previous);

/// The commit that the program was built from, "+changes" if the tree had any; "unknown" outside a repository.
std::string git_revision();
/// Local time with its offset: "2026-01-31T12:00:00+0100".
std::string now_text();

/// Whether a folder holds what a run made: by the first line of its README.txt.
bool is_run_folder(const std::filesystem::path& path);

class RunFolder {
 public:
  /// Makes the folder with its subfolders and README.txt, so that a folder that cannot be written is known at once, and
  /// locks it against other runs as long as the RunFolder lives. Throws ConfigError if another run is in it, if `mode`
  /// is fresh and the folder is not empty, or overwrite and it is not a run folder; EnvironmentError with the system's
  /// reason if it cannot be written.
  static RunFolder open(const std::filesystem::path& path, OpenMode mode);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path log_file() const { return path_ / "training.log"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path subsets() const { return path_ / "subset_indices"; }
  std::filesystem::path train_events() const { return path_ / "tensorboard" / "train"; }
  std::filesystem::path validation_events() const { return path_ / "tensorboard" / "validation"; }

  /// On resume from the checkpoint `from`: checkpoints and subsets of later ones belong to work that is done again.
  /// They are renamed to end in `.abandoned`, so that a later resume does not take them. Returns what was renamed.
  std::vector<std::filesystem::path> set_aside_after(const CheckpointName& from) const;
  /// config.yaml (to_yaml) and config.json: {"config": to_json's text, "run": versions, git revision, ranks, hosts,
  /// ...}.
  void write_config(const std::string& config_yaml, const std::string& config_json, const RunInfo& info) const;
  /// data_changes.json: what data_changes_json (training/data_changes.h) says; nothing if it is empty.
  void write_data_changes(const std::string& text) const;
  /// subset_indices/epoch_N_indices.json; with `scores` also epoch_N_scores.csv with all of them (example_id, label,
  /// score, kept) and, in the JSON, the scores of the kept in the order of `ids`. Throws InternalError if ids do not
  /// ascend or the table's columns differ in length or lack a kept id.
  void write_subset(const SubsetRecord& record, const ScoreTable* scores = nullptr) const;

 private:
  RunFolder(std::filesystem::path path, FolderLock lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::filesystem::path path_;
  FolderLock lock_;
};

/// The ids of an epoch_N_indices.json. Throws DataError naming the file if it is not one.
std::vector<std::int64_t> read_subset_ids(const std::filesystem::path& path);

/// The short form for metrics.json.
SelectionSummary summarize(const SubsetRecord& record);

}  // namespace sage
