#include "training/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"

namespace sage {
namespace {

using json = nlohmann::ordered_json;

/// JSON has no word for a number that is not finite: null stands for it.
json number(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }
double to_number(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}
json optional_number(const std::optional<double>& value) { return value ? number(*value) : json(nullptr); }
std::optional<double> to_optional_number(const json& value) {
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}

json numbers(const std::vector<double>& values) {
  json all = json::array();
  for (const double value : values) all.push_back(number(value));
  return all;
}
std::vector<double> to_numbers(const json& from) {
  std::vector<double> values;
  for (const json& value : from) values.push_back(to_number(value));
  return values;
}

json evaluation_json(const std::optional<Evaluation>& evaluation) {
  if (!evaluation) return nullptr;
  json result{{"loss", number(evaluation->loss)}, {"accuracy", number(evaluation->accuracy)}};
  if (!evaluation->class_accuracy.empty()) {
    result["f1_macro"] = number(evaluation->f1_macro);
    result["class_accuracy"] = numbers(evaluation->class_accuracy);
  }
  return result;
}
std::optional<Evaluation> to_evaluation(const json& from) {
  if (from.is_null()) return {};
  Evaluation evaluation{to_number(from.at("loss")), to_number(from.at("accuracy"))};
  if (from.contains("class_accuracy")) {
    evaluation.f1_macro = to_number(from.at("f1_macro"));
    evaluation.class_accuracy = to_numbers(from.at("class_accuracy"));
  }
  return evaluation;
}

json rank_json(const RankUse& use) {
  return {{"rank", use.rank},
          {"host_peak_bytes", use.host_peak_bytes},
          {"device_peak_bytes", use.device_peak_bytes},
          {"cpu_seconds", use.cpu_seconds},
          {"phases", json::parse(phases_to_json(use.phases))}};
}
std::int64_t count_at(const json& from, const char* key) { return whole_number(from.at(key), key); }
RankUse to_rank(const json& from) {
  RankUse use{static_cast<int>(whole_number(from.at("rank"), "rank", 0, std::numeric_limits<int>::max())),
              {},
              count_at(from, "host_peak_bytes"),
              count_at(from, "device_peak_bytes"),
              from.contains("cpu_seconds") ? to_number(from.at("cpu_seconds")) : 0.0};
  for (const auto& [phase, cost] : from.at("phases").items()) {
    use.phases[phase] = {cost.at("seconds").get<double>(), count_at(cost, "calls"), count_at(cost, "host_peak_bytes"),
                         count_at(cost, "device_peak_bytes")};
  }
  return use;
}

std::vector<std::int64_t> to_counts(const json& from, const char* key) {
  std::vector<std::int64_t> counts;
  for (const json& count : from.at(key)) counts.push_back(whole_number(count, key));
  return counts;
}

/// Seconds of a phase, the most of all ranks.
double slowest(const EpochRecord& record, const std::string& phase) {
  double most = 0.0;
  for (const RankUse& use : record.ranks) {
    const auto found = use.phases.find(phase);
    if (found != use.phases.end()) most = std::max(most, found->second.seconds);
  }
  return most;
}

json dropout_json(const EpochRecord& epoch) {
  if (!epoch.dropout) return nullptr;
  const DropoutRecord& record = *epoch.dropout;
  const auto part = [](std::int64_t of, std::int64_t all) {
    return all > 0 ? json(static_cast<double>(of) / static_cast<double>(all)) : json(nullptr);
  };
  json kept_part_of_class = json::array();
  for (std::size_t c = 0; c < record.kept_of_class.size(); ++c) {
    kept_part_of_class.push_back(part(record.kept_of_class[c], record.offered_of_class[c]));
  }
  return {{"everything", record.everything},
          {"offered", record.offered},
          {"kept", record.kept},
          {"kept_fraction", part(record.kept, record.offered)},
          {"updates", record.updates},
          {"empty_batches", record.empty_batches},
          {"training_seconds", number(record.training_seconds)},
          {"earlier_seconds", number(record.earlier_seconds)},
          {"scoring_seconds", number(slowest(epoch, "scoring"))},
          {"offered_of_class", record.offered_of_class},
          {"hard_of_class", record.hard_of_class},
          {"kept_of_class", record.kept_of_class},
          {"kept_fraction_of_class", kept_part_of_class},
          {"difficulty", numbers(record.difficulty)},
          {"proportion", numbers(record.proportion)}};
}
std::optional<DropoutRecord> to_dropout(const json& from) {
  if (from.is_null()) return {};
  DropoutRecord record;
  from.at("everything").get_to(record.everything);
  record.offered = count_at(from, "offered");
  record.kept = count_at(from, "kept");
  record.updates = count_at(from, "updates");
  record.empty_batches = count_at(from, "empty_batches");
  record.training_seconds = to_number(from.at("training_seconds"));
  record.earlier_seconds = from.contains("earlier_seconds") ? to_number(from.at("earlier_seconds")) : 0.0;
  record.offered_of_class = to_counts(from, "offered_of_class");
  record.hard_of_class = to_counts(from, "hard_of_class");
  record.kept_of_class = to_counts(from, "kept_of_class");
  record.difficulty = to_numbers(from.at("difficulty"));
  record.proportion = to_numbers(from.at("proportion"));
  return record;
}

json epoch_json(const EpochRecord& record) {
  json ranks = json::array();
  for (const RankUse& use : record.ranks) ranks.push_back(rank_json(use));
  json result{{"epoch", record.epoch},
              {"steps", record.steps},
              {"examples_seen", record.examples_seen},
              {"effective_epochs", number(record.effective_epochs)},
              {"learning_rate", number(record.learning_rate)},
              {"seconds", number(record.seconds)},
              {"train", evaluation_json(record.train)},
              {"validation", evaluation_json(record.validation)},
              {"test", evaluation_json(record.test)},
              {"dropout", dropout_json(record)},
              {"ranks", ranks}};
  if (record.crest) result["crest"] = to_json(*record.crest);
  return result;
}
EpochRecord to_epoch(const json& from) {
  EpochRecord record;
  record.epoch = count_at(from, "epoch");
  record.steps = count_at(from, "steps");
  record.examples_seen = count_at(from, "examples_seen");
  record.effective_epochs = to_number(from.value("effective_epochs", json()));
  record.learning_rate = to_number(from.at("learning_rate"));
  record.seconds = to_number(from.at("seconds"));
  record.train = to_evaluation(from.at("train")).value_or(Evaluation{});
  record.validation = to_evaluation(from.at("validation"));
  record.test = to_evaluation(from.at("test"));
  record.dropout = to_dropout(from.value("dropout", json()));
  for (const json& use : from.at("ranks")) record.ranks.push_back(to_rank(use));
  if (from.contains("crest")) record.crest = crest_epoch_from_json(from["crest"]);
  return record;
}

json selection_json(const SelectionSummary& record) {
  return {{"epoch", record.epoch},
          {"round", record.round},
          {"method", record.method},
          {"candidates", record.candidates},
          {"kept", record.kept},
          {"seconds", number(record.seconds)},
          {"phase_seconds", record.phase_seconds},
          {"relative_certificate", optional_number(record.relative_certificate)},
          {"overlap", optional_number(record.overlap)},
          {"noise_rate", optional_number(record.noise_rate)},
          {"wrong_labels_kept", record.wrong_labels_kept ? json(*record.wrong_labels_kept) : json(nullptr)},
          {"wrong_labels_auroc", optional_number(record.wrong_labels_auroc)},
          {"wrong_labels_precision", optional_number(record.wrong_labels_precision)}};
}
SelectionSummary to_selection(const json& from) {
  SelectionSummary record;
  record.epoch = count_at(from, "epoch");
  record.round = count_at(from, "round");
  record.method = from.at("method").get<std::string>();
  record.candidates = count_at(from, "candidates");
  record.kept = count_at(from, "kept");
  record.seconds = to_number(from.at("seconds"));
  record.phase_seconds = from.at("phase_seconds").get<std::map<std::string, double>>();
  record.relative_certificate = to_optional_number(from.at("relative_certificate"));
  record.overlap = to_optional_number(from.at("overlap"));
  record.noise_rate = to_optional_number(from.at("noise_rate"));
  if (const json& wrong = from.at("wrong_labels_kept"); !wrong.is_null()) {
    record.wrong_labels_kept = whole_number(wrong, "wrong_labels_kept");
  }
  // Runs of an earlier version have none.
  record.wrong_labels_auroc = to_optional_number(from.value("wrong_labels_auroc", json()));
  record.wrong_labels_precision = to_optional_number(from.value("wrong_labels_precision", json()));
  return record;
}

/// How many times as long the steps of the same epochs would have taken on everything, by the epochs of this run that
/// trained on everything. Epochs whose steps were made by several processes are left out: their time is not told apart.
/// None where there is nothing to compare.
std::optional<double> wall_clock_gain(const std::vector<EpochRecord>& epochs) {
  double seconds = 0.0, seconds_on_all = 0.0;
  std::int64_t offered = 0, offered_on_all = 0;
  for (const EpochRecord& epoch : epochs) {
    if (!epoch.dropout) return {};
    if (epoch.dropout->earlier_seconds > 0.0) continue;
    seconds += epoch.dropout->training_seconds;
    offered += epoch.dropout->offered;
    if (!epoch.dropout->everything) continue;
    seconds_on_all += epoch.dropout->training_seconds;
    offered_on_all += epoch.dropout->offered;
  }
  if (offered_on_all == 0 || offered_on_all == offered || seconds <= 0.0) return {};
  return seconds_on_all / static_cast<double>(offered_on_all) * static_cast<double>(offered) / seconds;
}

}  // namespace

Metrics::Metrics(std::filesystem::path folder) : folder_(std::move(folder)) {}

Metrics Metrics::resume(std::filesystem::path folder, std::int64_t last_epoch, std::int64_t last_round,
                        std::int64_t last_update) {
  Metrics metrics(std::move(folder));
  const std::filesystem::path path = metrics.folder_ / "metrics.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return metrics;
  const auto refuse = [&](const std::string& cause) {
    throw CheckpointError(
        fmt::format("cannot read {}: {}; move it away to resume without the earlier figures", path.string(), cause));
  };
  const std::string text = read_file(path);
  try {
    // Thousands of epochs on hundreds of ranks are many values.
    const json all = parse_json<json>(text, {.bytes = text.size(), .values = std::size_t{64} << 20});
    for (const json& one : all.at("epochs")) {
      EpochRecord record = to_epoch(one);
      if (!metrics.epochs_.empty() && record.epoch <= metrics.epochs_.back().epoch) {
        refuse(fmt::format("epoch {} stands after epoch {}", record.epoch, metrics.epochs_.back().epoch));
      }
      if (record.epoch <= last_epoch) metrics.epochs_.push_back(std::move(record));
    }
    for (const json& one : all.at("selections")) {
      SelectionSummary record = to_selection(one);
      if (record.round <= last_round) metrics.selections_.push_back(std::move(record));
    }
    if (all.contains("crest_updates")) {
      for (const json& one : all["crest_updates"]) {
        CrestUpdate record = crest_update_from_json(one);
        if (record.round <= last_update) metrics.crest_updates_.push_back(record);
      }
    }
    metrics.versions_ = all.at("versions").get<std::map<std::string, std::string>>();
  } catch (const JsonError& failure) {
    refuse(failure.what());
  } catch (const json::exception& failure) {
    refuse(excerpt(failure.what(), 300));
  }
  return metrics;
}

void Metrics::add(EpochRecord record) {
  require(epochs_.empty() || epochs_.back().epoch < record.epoch, "Metrics: epochs must ascend");
  epochs_.push_back(std::move(record));
  write();
}

void Metrics::add(SelectionSummary record) { selections_.push_back(std::move(record)); }

void Metrics::add(CrestUpdate record) { crest_updates_.push_back(std::move(record)); }

double Metrics::total_seconds() const {
  double sum = 0.0;
  for (const EpochRecord& record : epochs_) sum += record.seconds;
  return sum;
}

double Metrics::selection_seconds() const {
  double sum = 0.0;
  for (const SelectionSummary& record : selections_) sum += record.seconds;
  return sum;
}

double Metrics::cpu_seconds() const {
  double sum = 0.0;
  for (const EpochRecord& record : epochs_) {
    for (const RankUse& use : record.ranks) sum += use.cpu_seconds;
  }
  return sum;
}

const EpochRecord* Metrics::best() const {
  const EpochRecord* best = nullptr;
  for (const EpochRecord& record : epochs_) {
    if (judged(record) && (!best || judged(record)->accuracy > judged(*best)->accuracy)) best = &record;
  }
  return best;
}

std::string Metrics::to_json() const {
  json summary = json::object();
  summary["epochs"] = epochs_.empty() ? 0 : epochs_.back().epoch;
  summary["steps"] = epochs_.empty() ? 0 : epochs_.back().steps;
  summary["examples_seen"] = epochs_.empty() ? 0 : epochs_.back().examples_seen;
  summary["effective_epochs"] = epochs_.empty() ? json(0) : number(epochs_.back().effective_epochs);
  if (!epochs_.empty() && epochs_.back().dropout)
    summary["wall_clock_gain"] = optional_number(wall_clock_gain(epochs_));
  summary["total_seconds"] = number(total_seconds());
  summary["selection_seconds"] = number(selection_seconds());
  summary["cpu_seconds"] = number(cpu_seconds());
  summary["selections"] = selections_.size();
  if (!epochs_.empty()) {
    summary["final_train"] = evaluation_json(epochs_.back().train);
    const auto last_with = [&](auto member) -> json {
      for (auto record = epochs_.rbegin(); record != epochs_.rend(); ++record) {
        if ((*record).*member) return evaluation_json((*record).*member);
      }
      return nullptr;
    };
    summary["final_validation"] = last_with(&EpochRecord::validation);
    summary["final_test"] = last_with(&EpochRecord::test);
    std::int64_t host = 0, device = 0;
    for (const EpochRecord& record : epochs_) {
      for (const RankUse& use : record.ranks) {
        host = std::max(host, use.host_peak_bytes);
        device = std::max(device, use.device_peak_bytes);
      }
    }
    summary["host_peak_bytes"] = host;
    summary["device_peak_bytes"] = device;
  }
  if (const EpochRecord* top = best()) {
    summary["best_epoch"] = top->epoch;
    summary["best_accuracy"] = number(judged(*top)->accuracy);
    summary["best_accuracy_of"] = top->validation ? "validation" : "test";
  }
  if (!epochs_.empty() && epochs_.back().crest) {
    CrestEpoch total = *epochs_.back().crest;
    total.seconds = {};
    for (const EpochRecord& record : epochs_) {
      if (record.crest) total.seconds += record.crest->seconds;
    }
    summary["crest"] = sage::to_json(total);
    summary["crest"]["share_of_other_phases"] = number(total.seconds.share_of_others());
  }
  for (const auto& [key, value] : summary_numbers_) summary[key] = number(value);
  for (const auto& [key, value] : summary_texts_) summary[key] = value;

  json epochs = json::array(), selections = json::array();
  for (const EpochRecord& record : epochs_) epochs.push_back(epoch_json(record));
  for (const SelectionSummary& record : selections_) selections.push_back(selection_json(record));
  json all{{"summary", summary},
           {"versions", versions_},
           {"class_names", class_names_},
           {"selections", selections},
           {"epochs", epochs}};
  if (!crest_updates_.empty()) {
    all["crest_updates"] = json::array();
    for (const CrestUpdate& update : crest_updates_) all["crest_updates"].push_back(sage::to_json(update));
  }
  return all.dump(2) + "\n";
}

std::string Metrics::to_csv() const {
  std::vector<std::string> phases;
  for (const EpochRecord& record : epochs_) {
    for (const RankUse& use : record.ranks) {
      for (const auto& [name, cost] : use.phases) phases.push_back(name);
    }
  }
  std::sort(phases.begin(), phases.end());
  phases.erase(std::unique(phases.begin(), phases.end()), phases.end());

  std::string text =
      "epoch,steps,examples_seen,learning_rate,seconds,train_loss,train_accuracy,validation_loss,validation_accuracy,"
      "test_loss,test_accuracy,validation_f1_macro,test_f1_macro,effective_epochs,kept_fraction,host_peak_bytes,"
      "device_peak_bytes";
  for (const std::string& phase : phases) text += fmt::format(",seconds.{}", phase);
  text += '\n';
  const auto pair = [](const std::optional<Evaluation>& evaluation) {
    return evaluation ? fmt::format("{},{}", evaluation->loss, evaluation->accuracy) : std::string(",");
  };
  const auto f1 = [](const std::optional<Evaluation>& evaluation) {
    return evaluation && std::isfinite(evaluation->f1_macro) ? fmt::format("{}", evaluation->f1_macro) : std::string();
  };
  const auto kept = [](const std::optional<DropoutRecord>& record) {
    if (!record || record->offered == 0) return std::string();
    return fmt::format("{}", static_cast<double>(record->kept) / static_cast<double>(record->offered));
  };
  for (const EpochRecord& record : epochs_) {
    std::int64_t host = 0, device = 0;
    for (const RankUse& use : record.ranks) {
      host = std::max(host, use.host_peak_bytes);
      device = std::max(device, use.device_peak_bytes);
    }
    text += fmt::format("{},{},{},{},{:.6f},{},{},{},{},{},{},{},{},{}", record.epoch, record.steps,
                        record.examples_seen, record.learning_rate, record.seconds, pair(record.train),
                        pair(record.validation), pair(record.test), f1(record.validation), f1(record.test),
                        record.effective_epochs, kept(record.dropout), host, device);
    for (const std::string& phase : phases) text += fmt::format(",{:.6f}", slowest(record, phase));
    text += '\n';
  }
  return text;
}

void Metrics::write() const {
  write_file(folder_ / "metrics.json", to_json());
  write_file(folder_ / "metrics.csv", to_csv());
}

}  // namespace sage
