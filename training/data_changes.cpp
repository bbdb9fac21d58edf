#include "training/data_changes.h"

#include <nlohmann/json.hpp>
#include <vector>

namespace sage {
namespace {

using json = nlohmann::ordered_json;

std::vector<std::int64_t> labels_of(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& labels) {
  std::vector<std::int64_t> some;
  for (const std::int64_t id : ids) some.push_back(labels[static_cast<std::size_t>(id)]);
  return some;
}

}  // namespace

std::string data_changes_json(const Experiment& experiment) {
  const Dataset& dataset = experiment.dataset;
  const DataConfig& config = experiment.config.data;
  const std::vector<std::int64_t>& truth = dataset.train.labels;
  if (experiment.corrupted.empty() && experiment.dropped_by_long_tail.empty() &&
      experiment.dropped_by_downsampling.empty()) {
    return "";
  }
  std::vector<std::int64_t> before(static_cast<std::size_t>(dataset.class_count)), after = before;
  for (const std::int64_t label : truth) ++before[static_cast<std::size_t>(label)];
  for (const std::int64_t id : experiment.candidates) {
    ++after[static_cast<std::size_t>(truth[static_cast<std::size_t>(id)])];
  }
  const auto dropped = [&](const char* key, double value, const std::vector<std::int64_t>& ids) {
    return json{{"setting", key}, {"value", value}, {"ids", ids}, {"true", labels_of(ids, truth)}};
  };
  const json all = {
      {"data", dataset.name},
      {"seed", experiment.config.seed},
      {"class_names", dataset.class_names},
      {"class_sizes_of_files", before},
      {"class_sizes_to_train_on", after},
      {"wrong_labels",
       {{"kind", config.corrupt_kind},
        {"human_labels", config.human_labels},
        {"of", experiment.candidates.size()},
        {"rate", static_cast<double>(experiment.corrupted.size()) / static_cast<double>(experiment.candidates.size())},
        {"ids", experiment.corrupted},
        {"given", labels_of(experiment.corrupted, experiment.labels)},
        {"true", labels_of(experiment.corrupted, truth)}}},
      {"dropped",
       {dropped("data.long_tail", config.long_tail, experiment.dropped_by_long_tail),
        dropped("data.minority_downsample", config.minority_downsample, experiment.dropped_by_downsampling)}}};
  return all.dump() + "\n";
}

}  // namespace sage
