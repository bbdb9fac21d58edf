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

json evaluation_json(const std::optional<Evaluation>& evaluation) {
  if (!evaluation) return nullptr;
  return {{"loss", number(evaluation->loss)}, {"accuracy", number(evaluation->accuracy)}};
}
std::optional<Evaluation> to_evaluation(const json& from) {
  if (from.is_null()) return {};
  return Evaluation{to_number(from.at("loss")), to_number(from.at("accuracy"))};
}

json rank_json(const RankUse& use) {
  return {{"rank", use.rank},
          {"host_peak_bytes", use.host_peak_bytes},
          {"device_peak_bytes", use.device_peak_bytes},
          {"phases", json::parse(phases_to_json(use.phases))}};
}
std::int64_t count_at(const json& from, const char* key) { return whole_number(from.at(key), key); }
RankUse to_rank(const json& from) {
  RankUse use{static_cast<int>(whole_number(from.at("rank"), "rank", 0, std::numeric_limits<int>::max())),
              {},
              count_at(from, "host_peak_bytes"),
              count_at(from, "device_peak_bytes")};
  for (const auto& [phase, cost] : from.at("phases").items()) {
    use.phases[phase] = {cost.at("seconds").get<double>(), count_at(cost, "calls"), count_at(cost, "host_peak_bytes"),
                         count_at(cost, "device_peak_bytes")};
  }
  return use;
}

json epoch_json(const EpochRecord& record) {
  json ranks = json::array();
  for (const RankUse& use : record.ranks) ranks.push_back(rank_json(use));
  json result{{"epoch", record.epoch},
              {"steps", record.steps},
              {"examples_seen", record.examples_seen},
              {"learning_rate", number(record.learning_rate)},
              {"seconds", number(record.seconds)},
              {"train", evaluation_json(record.train)},
              {"validation", evaluation_json(record.validation)},
              {"test", evaluation_json(record.test)},
              {"ranks", ranks}};
  if (record.crest) result["crest"] = to_json(*record.crest);
  return result;
}
EpochRecord to_epoch(const json& from) {
  EpochRecord record;
  record.epoch = count_at(from, "epoch");
  record.steps = count_at(from, "steps");
  record.examples_seen = count_at(from, "examples_seen");
  record.learning_rate = to_number(from.at("learning_rate"));
  record.seconds = to_number(from.at("seconds"));
  record.train = to_evaluation(from.at("train")).value_or(Evaluation{});
  record.validation = to_evaluation(from.at("validation"));
  record.test = to_evaluation(from.at("test"));
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

const std::optional<Evaluation>& judged(const EpochRecord& record) {
  return record.validation ? record.validation : record.test;
}

/// The key of a phase that makes it one CSV column: seconds, the most of all ranks.
double slowest(const EpochRecord& record, const std::string& phase) {
  double most = 0.0;
  for (const RankUse& use : record.ranks) {
    const auto found = use.phases.find(phase);
    if (found != use.phases.end()) most = std::max(most, found->second.seconds);
  }
  return most;
}

}  // namespace

Metrics::Metrics(std::filesystem::path folder) : folder_(std::move(folder)) {}

Metrics Metrics::resume(std::filesystem::path folder, std::int64_t last_epoch, std::int64_t last_round,
                        std::int64_t last_step) {
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
        if (record.step < last_step) metrics.crest_updates_.push_back(record);
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
  summary["total_seconds"] = number(total_seconds());
  summary["selection_seconds"] = number(selection_seconds());
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
  json all{{"summary", summary}, {"versions", versions_}, {"selections", selections}, {"epochs", epochs}};
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
      "test_loss,test_accuracy,host_peak_bytes,device_peak_bytes";
  for (const std::string& phase : phases) text += fmt::format(",seconds.{}", phase);
  text += '\n';
  const auto pair = [](const std::optional<Evaluation>& evaluation) {
    return evaluation ? fmt::format("{},{}", evaluation->loss, evaluation->accuracy) : std::string(",");
  };
  for (const EpochRecord& record : epochs_) {
    std::int64_t host = 0, device = 0;
    for (const RankUse& use : record.ranks) {
      host = std::max(host, use.host_peak_bytes);
      device = std::max(device, use.device_peak_bytes);
    }
    text += fmt::format("{},{},{},{},{:.6f},{},{},{},{},{}", record.epoch, record.steps, record.examples_seen,
                        record.learning_rate, record.seconds, pair(record.train), pair(record.validation),
                        pair(record.test), host, device);
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
