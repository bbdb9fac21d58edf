#include "training/features.h"

#include <ATen/ops/softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/safetensors.h"
#include "data/sharding.h"
#include "models/weights.h"
#include "training/commands.h"
#include "training/experiment.h"
#include "training/job.h"
#include "training/resume.h"
#include "training/run_folder.h"

namespace sage {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t batch_size = 256;
constexpr std::int64_t most_bytes = std::int64_t{256} << 20;  // of rows that are gathered together

/// Which examples of which split, in the order of the rows.
struct Wanted {
  const ImageStore* images = nullptr;
  const std::vector<std::int64_t>* labels = nullptr;
  std::vector<std::int64_t> ids;
};

Wanted choose_examples(const Experiment& experiment, const std::string& split) {
  if (split == "train") return {experiment.train_images.get(), &experiment.labels, experiment.candidates};
  return {experiment.test_images.get(), &experiment.dataset.test.labels, experiment.dataset.test.readable_ids()};
}

/// Rows of a part, gathered from ALL ranks: [n, F + C], features and probabilities side by side. The batches are the
/// same whatever the number of ranks; each rank computes some of them.
at::Tensor gather_rows(Classifier& network, const ImageStore& images, std::span<const std::int64_t> ids,
                       Communicator& communicator) {
  const at::NoGradGuard no_gradients;
  const auto count = static_cast<std::int64_t>(ids.size());
  const Range batches = balanced_range((count + batch_size - 1) / batch_size, communicator.rank(), communicator.size());
  const std::int64_t width = network.feature_count() + network.class_count();
  std::vector<at::Tensor> rows = {at::empty({0, width}, at::TensorOptions(at::kFloat).device(images.device()))};
  for (std::int64_t batch = batches.begin; batch < batches.end; ++batch) {
    const std::int64_t begin = batch * batch_size, size = std::min(batch_size, count - begin);
    const at::Tensor features = network.features(
        images.images_of(ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size))));
    rows.push_back(at::cat({features, at::softmax(network.logits(features), 1)}, 1));
  }
  return communicator.all_gather_rows(at::cat(rows)).cpu();
}

/// The newest record of what was kept when `epoch` epochs were done; empty if there is none.
fs::path find_subset(const fs::path& run, std::int64_t epoch) {
  static const std::regex pattern(R"(epoch_(\d{1,18})_indices\.json)");
  fs::path found;
  std::int64_t newest = -1;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run / "subset_indices", error)) {
    std::smatch match;
    const std::string name = entry.path().filename().string();
    if (!std::regex_match(name, match, pattern)) continue;
    const std::int64_t at = std::stoll(match[1]);
    if (at <= epoch && at > newest) {
      newest = at;
      found = entry.path();
    }
  }
  return found;
}

at::Tensor kept_flags(std::span<const std::int64_t> ids, const fs::path& subset) {
  if (subset.empty()) return at::ones({static_cast<std::int64_t>(ids.size())}, at::kByte);
  const auto kept = read_subset_ids(subset);
  at::Tensor flags = at::zeros({static_cast<std::int64_t>(ids.size())}, at::kByte);
  auto* flag = flags.mutable_data_ptr<std::uint8_t>();
  std::size_t found = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    flag[i] = std::binary_search(kept.begin(), kept.end(), ids[i]) ? 1 : 0;
    found += flag[i];
  }
  if (found != kept.size()) {
    throw DataError(
        fmt::format("{}: {} of its {} ids are no training examples of this run; give the file of the same run",
                    subset.string(), kept.size() - found, kept.size()));
  }
  return flags;
}

at::Tensor to_tensor(std::span<const std::int64_t> values) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, at::kLong);
  std::ranges::copy(values, tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

std::vector<fs::path> output_files(const fs::path& folder, const std::string& split, std::int64_t parts) {
  if (parts == 1) return {folder / fmt::format("features_{}.safetensors", split)};
  std::vector<fs::path> files;
  for (std::int64_t part = 1; part <= parts; ++part) {
    files.push_back(folder / fmt::format("features_{}_{}_of_{}.safetensors", split, part, parts));
  }
  return files;
}

}  // namespace

int features_command_main(Runtime& runtime, const FeaturesOptions& options) {
  if (options.split != "train" && options.split != "test") {
    throw ConfigError(fmt::format("--split is {}, expected train or test", options.split));
  }
  if (options.split == "test" && !options.subset.empty()) {
    throw ConfigError("--subset names training examples: it does not go with --split test");
  }
  std::vector<std::string> notes;
  fs::path path = options.checkpoint;
  if (fs::is_directory(path / "checkpoints")) path = best_model_path(path / "checkpoints");
  path = find_checkpoint(path, notes);
  for (const auto& note : notes) log::info("{}", note);
  const TrainingState state = read_checkpoint(path);
  Config config = parse_config(state.config_json, path.string(), options.overrides);
  settle_names(config);
  Job job(runtime, config.device, config.distributed);
  expect_one_configuration(job, config);
  const auto experiment = prepare_experiment(config, job.device, *job.communicator);
  check_checkpoint_fits(state, path, config.model.name, config.data.name, experiment->dataset.class_count);
  const auto network = make_network(*experiment, config.model.name, config.seed, *job.statistics);
  job.communicator->all_or_none([&] { load_state(*network, state.learner.model); });
  network->eval();

  const Wanted wanted = choose_examples(*experiment, options.split);
  const auto count = static_cast<std::int64_t>(wanted.ids.size());
  const std::int64_t row_bytes =
      (network->feature_count() + network->class_count()) * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t part_rows = std::max<std::int64_t>(1, most_bytes / row_bytes / batch_size) * batch_size;
  const std::int64_t parts = std::max<std::int64_t>(1, (count + part_rows - 1) / part_rows);
  const fs::path run = run_folder_of(path);
  const fs::path folder = options.out.empty() ? run / "features" : fs::path(options.out);
  const auto files = output_files(folder, options.split, parts);
  const bool has_kept = options.split == "train";
  at::Tensor kept;
  std::map<std::string, std::string> metadata;
  job.communicator->all_or_none([&] {
    if (!job.is_lead()) return;
    for (const auto& file : files) {
      if (!options.overwrite && fs::exists(file)) {
        throw ConfigError(fmt::format("{} is there; give --overwrite to replace it, or another --out", file.string()));
      }
    }
    metadata = {{"split", options.split},
                {"data", config.data.name},
                {"model", config.model.name},
                {"checkpoint", path.string()},
                {"epoch", fmt::to_string(state.position.epoch)},
                {"class_names", nlohmann::json(experiment->dataset.class_names).dump()}};
    if (has_kept) {
      const fs::path subset =
          options.subset.empty() ? find_subset(run, state.position.epoch) : fs::path(options.subset);
      kept = kept_flags(wanted.ids, subset);
      metadata["subset"] = subset.string();
    }
    make_folder(folder);
  });

  std::vector<std::int64_t> labels;
  for (const auto id : wanted.ids) labels.push_back((*wanted.labels)[static_cast<std::size_t>(id)]);
  for (std::int64_t part = 0; part < parts; ++part) {
    const std::int64_t begin = part * part_rows, size = std::min(part_rows, count - begin);
    const auto slice = [&](const std::vector<std::int64_t>& values) {
      return std::span(values).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
    };
    const at::Tensor rows = gather_rows(*network, *wanted.images, slice(wanted.ids), *job.communicator);
    job.communicator->all_or_none([&] {
      if (!job.is_lead()) return;
      const std::int64_t features = network->feature_count();
      std::vector<NamedTensor> tensors = {{"features", rows.narrow(1, 0, features)},
                                          {"probabilities", rows.narrow(1, features, network->class_count())},
                                          {"labels", to_tensor(slice(labels))},
                                          {"ids", to_tensor(slice(wanted.ids))}};
      if (has_kept) tensors.push_back({"kept", kept.narrow(0, begin, size)});
      write_safetensors(files[static_cast<std::size_t>(part)], tensors, metadata);
    });
    log::info("{}: {} examples, {} features", files[static_cast<std::size_t>(part)].string(), size,
              network->feature_count());
  }
  return 0;
}

}  // namespace sage
