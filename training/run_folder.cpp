#include "training/run_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
#include <unordered_map>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"
#include "version_info.h"

namespace sage {
namespace {

using json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::string_view kReadmeFirstLine = "This folder was made by one run of `sage train`.\n";
constexpr std::string_view kReadmeRest = R"(
config.yaml          the whole configuration of the run, defaults included; `sage train config.yaml output_dir=NEW` repeats it
config.json          the same, with program versions, git revision, hosts, ranks, devices, start time, command line
metrics.json         all figures: a summary, each selection, each epoch with phase seconds and peak memory per rank
metrics.csv          one row an epoch, for spreadsheets and plots
data_changes.json    which labels were made wrong and which examples were left out on purpose; only where any were
training.log         what the run said, with times
run.lock             there while a run is going on; keeps a second one out
profile/trace_rank_R.json   with --profile: what rank R did when, for https://ui.perfetto.dev
checkpoints/
  checkpoint_epoch_N.safetensors   everything needed to go on after N completed epochs: `sage train ... --resume`
  checkpoint_epoch_N_step_S.safetensors   the same in the middle of the next epoch, after S steps of the run
  best_model.safetensors           the weights with the best validation (or test) accuracy so far
                       (both open in Python: safetensors.torch.load_file)
subset_indices/
  epoch_N_indices.json  what was selected after N completed epochs; `ids` are the training examples KEPT
  epoch_N_scores.csv    example id, label, score and kept (1 or 0) of every training example
features/             what `sage features` wrote: what the network sees in each example
tensorboard/          `tensorboard --logdir tensorboard` shows curves of training and validation

Example ids count the training examples from 0 in the order of the data set's official files, those set apart for
validation included. Accuracies are fractions between 0 and 1. A file ending in .tmp is left of an interrupted write,
one in .abandoned of work that a resumed run did again.
)";

/// What a run makes, as patterns of paths below its folder. The ending of an interrupted write may follow, or that of
/// work that was done again (set_aside_after).
const std::vector<std::regex>& own_files() {
  static const std::vector<std::regex> patterns = [] {
    std::vector<std::regex> made;
    for (const char* pattern :
         {R"(README\.txt|config\.(yaml|json)|metrics\.(json|csv)|data_changes\.json)",
          R"(checkpoints/checkpoint_epoch_\d+(_step_\d+)?\.safetensors)", R"(checkpoints/best_model\.safetensors)",
          R"(subset_indices/epoch_\d+_(indices\.json|scores\.csv))", R"(profile/trace_rank_\d+\.json)",
          R"(features/features_(train|test)(_\d+_of_\d+)?\.safetensors)"}) {
      made.emplace_back(fmt::format(R"(({})(\.\d+\.tmp|\.abandoned)?)", pattern));
    }
    made.emplace_back(R"(training\.log)");
    made.emplace_back(R"(tensorboard/(train|validation)/events\.out\.tfevents\..*)");
    return made;
  }();
  return patterns;
}

constexpr const char* kSubfolders[] = {"checkpoints", "subset_indices", "tensorboard/train", "tensorboard/validation",
                                       "tensorboard", "profile",        "features"};

/// Files below `folder` that a run made and whose name fits `wanted`.
std::vector<fs::path> find_own_files(const fs::path& folder, const std::function<bool(const std::string&)>& wanted) {
  std::vector<fs::path> found;
  const auto collect = [&](const fs::path& below) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder / below, error)) {
      const std::string name = (below / entry.path().filename()).generic_string();
      const auto matches = [&](const std::regex& pattern) { return std::regex_match(name, pattern); };
      if (!entry.is_directory(error) && wanted(name) && std::any_of(own_files().begin(), own_files().end(), matches)) {
        found.push_back(entry.path());
      }
    }
  };
  collect("");
  for (const char* subfolder : kSubfolders) collect(subfolder);
  return found;
}

void remove_files(const std::vector<fs::path>& files) {
  for (const fs::path& path : files) {
    std::error_code error;
    fs::remove(path, error);
    if (error) throw EnvironmentError(fmt::format("{}: cannot be removed ({})", path.string(), error.message()));
  }
}

void remove_own_files(const fs::path& folder) {
  auto found = find_own_files(folder, [](const std::string&) { return true; });
  // README.txt, by which a run folder is known, goes last: an interrupted removal can be repeated.
  std::stable_partition(found.begin(), found.end(),
                        [](const fs::path& path) { return path.filename() != "README.txt"; });
  remove_files(found);
}

/// What writes that were interrupted have left. Nobody else is in the folder: it is locked.
void remove_interrupted_writes(const fs::path& folder) {
  remove_files(find_own_files(folder, [](const std::string& name) { return name.ends_with(".tmp"); }));
}

json optional_number(const std::optional<double>& value) {
  return value && std::isfinite(*value) ? json(*value) : json(nullptr);
}

/// One row for each candidate; checks the table against the record.
std::unordered_map<std::int64_t, std::size_t> rows_by_id(const SubsetRecord& record, const ScoreTable& table) {
  require(table.ids.size() == table.labels.size() && table.ids.size() == table.scores.size(),
          "write_subset: the columns of the score table differ in length");
  std::unordered_map<std::int64_t, std::size_t> rows;
  rows.reserve(table.ids.size());
  for (std::size_t row = 0; row < table.ids.size(); ++row) rows[table.ids[row]] = row;
  for (const std::int64_t id : record.ids) {
    if (!rows.contains(id)) throw InternalError(fmt::format("write_subset: example {} is kept but has no score", id));
  }
  return rows;
}

void write_scores(const fs::path& path, const SubsetRecord& record, const ScoreTable& table) {
  write_file(path, [&](const AppendBytes& append) {
    std::string line = "example_id,label,score,kept\n";
    append(line.data(), line.size());
    for (std::size_t row = 0; row < table.ids.size(); ++row) {
      const bool kept = std::binary_search(record.ids.begin(), record.ids.end(), table.ids[row]);
      line = fmt::format("{},{},{},{}\n", table.ids[row], table.labels[row], table.scores[row], kept ? 1 : 0);
      append(line.data(), line.size());
    }
  });
}

/// An object with an entry for each; empty where nothing is known to be wrong.
json peers_json(const std::map<std::string, Detection>& peers) {
  json all = json::object();
  for (const auto& [name, found] : peers) {
    all[name] = {{"precision", optional_number(found.precision)},
                 {"recall", optional_number(found.recall)},
                 {"auroc", optional_number(found.auroc)}};
  }
  return all;
}

}  // namespace

bool is_run_folder(const fs::path& path) {
  std::error_code error;
  const fs::path readme = path / "README.txt";
  if (!fs::is_regular_file(readme, error) || fs::file_size(readme, error) > (1 << 16)) return false;
  return read_file(readme).starts_with(kReadmeFirstLine);
}

double subset_overlap(std::span<const std::int64_t> ids, std::span<const std::int64_t> previous) {
  if (ids.empty()) return 0.0;
  const auto common = std::count_if(ids.begin(), ids.end(), [&](std::int64_t id) {
    return std::binary_search(previous.begin(), previous.end(), id);
  });
  return static_cast<double>(common) / static_cast<double>(ids.size());
}

std::string git_revision() { return SAGE_GIT_REVISION; }

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  localtime_r(&now, &parts);
  char text[64];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S%z", &parts);
  return text;
}

RunFolder RunFolder::open(const fs::path& path, OpenMode mode) {
  require(!path.empty(), "RunFolder: the path is empty");
  std::error_code ignored, error;
  const bool exists = fs::exists(fs::symlink_status(path, ignored));
  if (exists && !fs::is_directory(path, ignored)) {
    throw ConfigError(fmt::format("output_dir {} is not a folder; give another one", path.string()));
  }
  const bool filled = exists && fs::directory_iterator(path, error) != fs::directory_iterator();
  if (error) throw EnvironmentError(fmt::format("{}: cannot be read ({})", path.string(), error.message()));
  std::optional<FolderLock> lock;
  if (is_run_folder(path)) lock.emplace(path);  // first: no other advice helps while a run is in it
  if (filled && mode == OpenMode::fresh) {
    throw ConfigError(
        fmt::format("output_dir {} is not empty; give --resume to go on with the run in it, --overwrite to "
                    "replace that run, or another output_dir",
                    path.string()));
  }
  if (filled && mode == OpenMode::overwrite) {
    if (!is_run_folder(path)) {
      throw ConfigError(
          fmt::format("--overwrite: {} does not look like a run folder of sage (no README.txt of one), so "
                      "nothing in it is removed; give another output_dir",
                      path.string()));
    }
    remove_own_files(path);
  }
  if (filled && mode == OpenMode::resume && !is_run_folder(path)) {
    throw ConfigError(
        fmt::format("--resume: {} is not empty and does not look like a run folder of sage (no README.txt of one), so "
                    "nothing is written there; give another output_dir",
                    path.string()));
  }
  if (filled && mode == OpenMode::resume) remove_interrupted_writes(path);
  make_folder(path);
  if (!lock) lock.emplace(path);
  RunFolder folder(path, std::move(*lock));
  write_file(path / "README.txt", fmt::format("{}{}", kReadmeFirstLine, kReadmeRest));
  for (const char* subfolder : kSubfolders) {
    const std::string_view name = subfolder;
    if (name.starts_with("tensorboard") || name == "profile" || name == "features")
      continue;  // only where their files are wanted
    make_folder(path / subfolder);
  }
  return folder;
}

std::vector<fs::path> RunFolder::set_aside_after(const CheckpointName& from) const {
  static const std::regex subset(R"(epoch_(\d{1,18})_(indices\.json|scores\.csv))");
  std::vector<fs::path> moved;
  for (const auto& entry : fs::directory_iterator(checkpoints())) {
    const auto name = parse_checkpoint_name(entry.path());
    if (name && *name > from) moved.push_back(entry.path());
  }
  for (const auto& entry : fs::directory_iterator(subsets())) {
    std::smatch match;
    const std::string name = entry.path().filename().string();
    if (std::regex_match(name, match, subset) && std::stoll(match[1]) > from.epoch) moved.push_back(entry.path());
  }
  for (const fs::path& path : moved) {
    std::error_code error;
    fs::rename(path, path.string() + ".abandoned", error);
    if (error) throw EnvironmentError(fmt::format("{} cannot be renamed ({})", path.string(), error.message()));
  }
  return moved;
}

void RunFolder::write_config(const std::string& config_yaml, const std::string& config_json,
                             const RunInfo& info) const {
  json run{{"versions", info.versions},        {"git_revision", git_revision()},
           {"ranks", info.hosts.size()},       {"hosts", info.hosts},
           {"devices", info.devices},          {"start_time", info.start_time},
           {"command_line", info.command_line}};
  json config;
  try {
    config = json::parse(config_json);
  } catch (const json::exception& failure) {
    throw InternalError(fmt::format("the configuration is not valid JSON: {}", failure.what()));
  }
  write_file(path_ / "config.yaml", config_yaml);
  write_file(path_ / "config.json",
             json{{"config", config}, {"run", run}}.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

void RunFolder::write_data_changes(const std::string& text) const {
  if (!text.empty()) write_file(path_ / "data_changes.json", text);
}

void RunFolder::write_subset(const SubsetRecord& record, const ScoreTable* scores) const {
  require(std::adjacent_find(record.ids.begin(), record.ids.end(), std::greater_equal<>()) == record.ids.end(),
          "write_subset: ids must ascend");
  json text{{"epoch", record.epoch},
            {"round", record.round},
            {"method", record.method},
            {"scoring", record.scoring},
            {"keep", record.keep},
            {"fraction", record.fraction},
            {"candidates", record.candidates},
            {"kept", record.ids.size()},
            {"class_histogram", record.class_histogram},
            {"class_names", record.class_names},
            {"sketch_rows", record.sketch_rows},
            {"certificate", optional_number(record.certificate)},
            {"relative_certificate", optional_number(record.relative_certificate)},
            {"seconds", record.seconds},
            {"phase_seconds", record.phase_seconds},
            {"overlap", optional_number(record.overlap)},
            {"noise_rate", optional_number(record.noise_rate)},
            {"wrong_labels_kept", record.wrong_labels_kept ? json(*record.wrong_labels_kept) : json(nullptr)},
            {"wrong_labels_doubted", record.wrong_labels_doubted ? json(*record.wrong_labels_doubted) : json(nullptr)},
            {"wrong_labels_auroc", optional_number(record.wrong_labels_auroc)},
            {"wrong_labels_precision", optional_number(record.wrong_labels_precision)},
            {"bytes_sent", record.bytes_sent},
            {"without_direction", record.without_direction},
            {"notes", record.notes},
            {"doubtful_ids", record.doubtful_ids},
            {"doubtful_precision", record.doubtful ? optional_number(record.doubtful->precision) : json(nullptr)},
            {"doubtful_recall", record.doubtful ? optional_number(record.doubtful->recall) : json(nullptr)},
            {"doubtful_auroc", record.doubtful ? optional_number(record.doubtful->auroc) : json(nullptr)},
            {"peers", peers_json(record.peers)},
            {"ids", record.ids}};
  if (!record.weights.empty()) {
    require(record.weights.size() == record.ids.size(), "write_subset: one weight for each kept example");
    text["weights"] = record.weights;
  }
  if (scores) {
    const auto rows = rows_by_id(record, *scores);
    json of_kept = json::array();
    for (const std::int64_t id : record.ids) {
      const float score = scores->scores[rows.at(id)];
      of_kept.push_back(std::isfinite(score) ? json(score) : json(nullptr));
    }
    text["scores"] = of_kept;
    text["scores_of_all"] = fmt::format("epoch_{}_scores.csv", record.epoch);
    write_scores(subsets() / fmt::format("epoch_{}_scores.csv", record.epoch), record, *scores);
  }
  write_file(subsets() / fmt::format("epoch_{}_indices.json", record.epoch), text.dump() + "\n");
}

std::vector<std::int64_t> read_subset_ids(const fs::path& path) {
  const auto refuse = [&](const std::string& cause) {
    throw DataError(
        fmt::format("{}: expected JSON with an ascending list `ids` of example numbers: {}", path.string(), cause));
  };
  const std::string text = read_file(path, std::size_t{256} << 20);
  std::vector<std::int64_t> ids;
  try {
    const json all = parse_json<json>(text, {.bytes = text.size(), .values = std::size_t{64} << 20});
    for (const json& id : all.at("ids")) {
      constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() - 1;
      ids.push_back(whole_number(id, "ids", ids.empty() ? 0 : ids.back() + 1, most));
    }
  } catch (const JsonError& failure) {
    refuse(failure.what());
  } catch (const json::exception& failure) {
    refuse(excerpt(failure.what(), 300));
  }
  return ids;
}

SelectionSummary summarize(const SubsetRecord& record) {
  SelectionSummary summary;
  summary.epoch = record.epoch;
  summary.round = record.round;
  summary.method = record.method;
  summary.candidates = record.candidates;
  summary.kept = static_cast<std::int64_t>(record.ids.size());
  summary.seconds = record.seconds;
  summary.phase_seconds = record.phase_seconds;
  summary.relative_certificate = record.relative_certificate;
  summary.overlap = record.overlap;
  summary.noise_rate = record.noise_rate;
  summary.wrong_labels_kept = record.wrong_labels_kept;
  summary.wrong_labels_auroc = record.wrong_labels_auroc;
  summary.wrong_labels_precision = record.wrong_labels_precision;
  return summary;
}

}  // namespace sage
