#include "training/checkpoint.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/safetensors.h"

namespace sage {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// '/' never stands in a model's dotted names.
constexpr std::string_view kOptimizerPrefix = "training/optimizer/";
constexpr std::string_view kSubsetName = "training/subset_ids";
constexpr std::string_view kStateKey = "sage.state";
constexpr std::string_view kConfigKey = "sage.config";
constexpr int kFormat = 1;

json state_to_json(const TrainingState& state, CheckpointContent content) {
  json result{{"format", kFormat},
              {"complete", content == CheckpointContent::everything},
              {"model", state.model},
              {"dataset", state.dataset},
              {"class_count", state.class_count},
              {"seed", state.seed},
              {"global_batch", state.global_batch},
              {"epoch", state.epoch},
              {"step", state.step},
              {"order_position", state.order_position},
              {"examples_seen", state.examples_seen},
              {"selection_round", state.selection_round},
              {"best_accuracy", nullptr},
              {"best_epoch", state.best_epoch},
              {"extra", state.extra}};
  if (state.best_accuracy) result["best_accuracy"] = *state.best_accuracy;
  return result;
}

TrainingState state_from_json(const json& from) {
  TrainingState state;
  from.at("model").get_to(state.model);
  from.at("dataset").get_to(state.dataset);
  from.at("class_count").get_to(state.class_count);
  from.at("seed").get_to(state.seed);
  from.at("global_batch").get_to(state.global_batch);
  from.at("epoch").get_to(state.epoch);
  from.at("step").get_to(state.step);
  from.at("order_position").get_to(state.order_position);
  from.at("examples_seen").get_to(state.examples_seen);
  from.at("selection_round").get_to(state.selection_round);
  if (!from.at("best_accuracy").is_null()) state.best_accuracy = from["best_accuracy"].get<double>();
  from.at("best_epoch").get_to(state.best_epoch);
  from.at("extra").get_to(state.extra);
  return state;
}

std::vector<std::int64_t> to_ids(const at::Tensor& tensor, const fs::path& path) {
  if (tensor.dim() != 1 || tensor.scalar_type() != at::kLong) {
    throw CheckpointError(fmt::format("cannot use {}: {} is not a list of int64", path.string(), kSubsetName));
  }
  const auto* ids = tensor.const_data_ptr<std::int64_t>();
  return {ids, ids + tensor.numel()};
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
}

/// N of checkpoint_epoch_N.safetensors.
std::optional<std::int64_t> epoch_of(const fs::path& path) {
  const std::string name = path.filename().string();
  constexpr std::string_view kBegin = "checkpoint_epoch_", kEnd = ".safetensors";
  if (!name.starts_with(kBegin) || !name.ends_with(kEnd) || name.size() <= kBegin.size() + kEnd.size()) return {};
  const char* end = name.data() + name.size() - kEnd.size();
  std::int64_t epoch = 0;
  const auto [stop, error] = std::from_chars(name.data() + kBegin.size(), end, epoch);
  if (error != std::errc() || stop != end || epoch < 0) return {};
  return epoch;
}

/// Newest first.
std::vector<std::pair<std::int64_t, fs::path>> list_checkpoints(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (const auto epoch = epoch_of(entry.path())) found.emplace_back(*epoch, entry.path());
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

bool is_complete(const TrainingState& state) { return !state.optimizer_state.empty(); }

ResumePoint newest_of(const fs::path& folder) {
  std::error_code error;
  const fs::path inside = folder / "checkpoints";
  const fs::path where = fs::is_directory(inside, error) ? inside : folder;
  ResumePoint point;
  for (const auto& [epoch, path] : list_checkpoints(where)) {
    try {
      point.state = read_checkpoint(path);
      if (!is_complete(point.state)) throw CheckpointError(fmt::format("{} holds weights only", path.string()));
      point.path = path;
      return point;
    } catch (const CheckpointError& failure) {
      point.notes.push_back(fmt::format("passed over a checkpoint: {}", failure.what()));
    }
  }
  if (point.notes.empty()) {
    throw CheckpointError(
        fmt::format("{} holds no checkpoint (checkpoint_epoch_N.safetensors) to resume from; start anew "
                    "with --overwrite or another output_dir",
                    where.string()));
  }
  throw CheckpointError(fmt::format("{} holds no whole checkpoint to resume from:\n  {}", where.string(),
                                    fmt::join(point.notes, "\n  ")));
}

}  // namespace

void write_checkpoint(const fs::path& path, const TrainingState& state, CheckpointContent content) {
  std::vector<NamedTensor> tensors = state.model_state;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.find('/') != std::string::npos) {
      throw InternalError(fmt::format("'{}': a model's names cannot hold '/'", tensor.name));
    }
  }
  if (content == CheckpointContent::everything) {
    require(!state.optimizer_state.empty(), "write_checkpoint: a complete checkpoint needs the optimizer's state");
    for (const NamedTensor& tensor : state.optimizer_state) {
      tensors.push_back({fmt::format("{}{}", kOptimizerPrefix, tensor.name), tensor.tensor});
    }
  }
  if (state.subset_ids) {
    const auto count = static_cast<std::int64_t>(state.subset_ids->size());
    at::Tensor ids = at::empty({count}, at::TensorOptions().dtype(at::kLong));
    std::copy(state.subset_ids->begin(), state.subset_ids->end(), ids.mutable_data_ptr<std::int64_t>());
    tensors.push_back({std::string(kSubsetName), ids});
  }
  write_safetensors(path, tensors,
                    {{"format", "pt"},  // how Python programs tell whose state dict this is
                     {std::string(kStateKey), state_to_json(state, content).dump()},
                     {std::string(kConfigKey), state.config_json}});
}

TrainingState read_checkpoint(const fs::path& path) {
  TensorFile file = read_safetensors(path);
  const auto text = file.metadata.find(std::string(kStateKey));
  const auto config = file.metadata.find(std::string(kConfigKey));
  if (text == file.metadata.end() || config == file.metadata.end()) {
    throw CheckpointError(
        fmt::format("cannot use {}: a safetensors file, but not a checkpoint of sage", path.string()));
  }
  TrainingState state;
  bool complete = false;
  try {
    const json from = json::parse(text->second);
    const int format = from.at("format").get<int>();
    if (format != kFormat) {
      throw CheckpointError(
          fmt::format("cannot use {}: its format is {}, this program reads {}", path.string(), format, kFormat));
    }
    from.at("complete").get_to(complete);
    state = state_from_json(from);
  } catch (const json::exception& error) {
    throw CheckpointError(fmt::format("cannot use {}: its state is not as expected ({})", path.string(), error.what()));
  }
  state.config_json = config->second;
  for (NamedTensor& tensor : file.tensors) {
    if (tensor.name == kSubsetName) {
      state.subset_ids = to_ids(tensor.tensor, path);
    } else if (tensor.name.starts_with(kOptimizerPrefix)) {
      state.optimizer_state.push_back({tensor.name.substr(kOptimizerPrefix.size()), tensor.tensor});
    } else {
      state.model_state.push_back(std::move(tensor));
    }
  }
  if (complete != is_complete(state)) {
    throw CheckpointError(fmt::format("cannot use {}: it {} an optimizer state against its own word", path.string(),
                                      complete ? "lacks" : "has"));
  }
  return state;
}

void check_checkpoint_fits(const TrainingState& state, const fs::path& path, const std::string& model,
                           const std::string& dataset, std::int64_t class_count) {
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, const auto& in_file, const auto& here) {
    if (in_file != here) differences.push_back(fmt::format("{} is {} there and {} here", key, in_file, here));
  };
  compare("model.name", state.model, model);
  compare("data.name", state.dataset, dataset);
  compare("the number of classes", state.class_count, class_count);
  if (!differences.empty()) {
    throw CheckpointError(
        fmt::format("{} does not belong to this run: {}; give the configuration it was made with, or "
                    "another checkpoint",
                    path.string(), fmt::join(differences, ", ")));
  }
}

void check_same_course(const TrainingState& state, const fs::path& path, const Config& config,
                       std::int64_t global_batch) {
  const Config there = parse_config(state.config_json, path.string(), {});
  std::vector<std::string> differences;
  const auto compare = [&](const char* key, const auto& in_file, const auto& here) {
    if (in_file != here) differences.push_back(fmt::format("{} is {} there and {} here", key, in_file, here));
  };
  compare("seed", there.seed, config.seed);
  compare("the global batch size", state.global_batch, global_batch);
  compare("data.labels", there.data.labels, config.data.labels);
  compare("data.validation_fraction", there.data.validation_fraction, config.data.validation_fraction);
  compare("data.corrupt_labels", there.data.corrupt_labels, config.data.corrupt_labels);
  compare("data.corrupt_kind", there.data.corrupt_kind, config.data.corrupt_kind);
  if (differences.empty()) return;
  throw CheckpointError(
      fmt::format("{} cannot go on: {}. A run resumes on the same examples in the same order; give the "
                  "values it was made with, or start a new run",
                  path.string(), fmt::join(differences, ", ")));
}

void load_tensors(std::span<const NamedTensor> destination, std::span<const NamedTensor> source,
                  const std::string& what) {
  std::map<std::string, const at::Tensor*> given;
  for (const NamedTensor& tensor : source) given[tensor.name] = &tensor.tensor;
  std::vector<std::string> problems;
  for (const NamedTensor& to : destination) {
    const auto found = given.find(to.name);
    if (found == given.end()) {
      problems.push_back(fmt::format("'{}' is missing", to.name));
    } else {
      const at::Tensor& from = *found->second;
      if (from.sizes() != to.tensor.sizes() || from.scalar_type() != to.tensor.scalar_type()) {
        problems.push_back(
            fmt::format("'{}' is {} where {} is needed", to.name, shape_text(from), shape_text(to.tensor)));
      }
      given.erase(found);
    }
  }
  for (const auto& [name, tensor] : given) problems.push_back(fmt::format("'{}' is unknown here", name));
  if (!problems.empty()) {
    const std::size_t total = problems.size();
    if (total > 5) {
      problems.resize(5);
      problems.push_back(fmt::format("and {} more", total - 5));
    }
    throw CheckpointError(fmt::format("cannot load {}: {}", what, fmt::join(problems, "; ")));
  }
  std::map<std::string, const at::Tensor*> by_name;
  for (const NamedTensor& tensor : source) by_name[tensor.name] = &tensor.tensor;
  const at::NoGradGuard no_grad;
  for (const NamedTensor& to : destination) {
    at::Tensor into = to.tensor;
    into.copy_(*by_name.at(to.name));
  }
}

fs::path checkpoint_path(const fs::path& folder, std::int64_t epoch) {
  return folder / fmt::format("checkpoint_epoch_{}.safetensors", epoch);
}

fs::path find_checkpoint(const fs::path& path, std::vector<std::string>& notes) {
  std::error_code error;
  if (fs::exists(path, error)) return path;
  std::vector<fs::path> names{path.filename()};
  if (path.extension() != ".safetensors") {
    fs::path renamed = path.filename();
    if (path.extension() == ".pt") renamed.replace_extension();
    renamed += ".safetensors";
    names.push_back(renamed);
  }
  std::vector<std::string> looked_for;
  for (const fs::path& folder : {path.parent_path(), path.parent_path() / "checkpoints"}) {
    for (const fs::path& name : names) {
      const fs::path candidate = folder / name;
      if (fs::is_regular_file(candidate, error)) {
        notes.push_back(fmt::format("{} does not exist; taking {}", path.string(), candidate.string()));
        return candidate;
      }
      looked_for.push_back(candidate.string());
    }
  }
  throw CheckpointError(
      fmt::format("there is no checkpoint {} (looked for {})", path.string(), fmt::join(looked_for, ", ")));
}

ResumePoint find_resume_point(const fs::path& from) {
  std::vector<std::string> notes;
  const fs::path path = find_checkpoint(from, notes);
  std::error_code error;
  if (fs::is_directory(path, error)) return newest_of(path);
  ResumePoint point{path, read_checkpoint(path), std::move(notes)};
  if (!is_complete(point.state)) {
    throw CheckpointError(
        fmt::format("{} holds weights only; resume from a checkpoint_epoch_N.safetensors or from the "
                    "run folder",
                    path.string()));
  }
  return point;
}

std::vector<fs::path> remove_old_checkpoints(const fs::path& folder, std::int64_t keep) {
  require(keep >= 2, "remove_old_checkpoints: at least two are kept, since the newest may turn out damaged");
  std::vector<fs::path> removed;
  std::int64_t seen = 0;
  for (const auto& [epoch, path] : list_checkpoints(folder)) {
    if (seen++ < keep) continue;
    std::error_code error;
    if (fs::remove(path, error)) removed.push_back(path);
  }
  return removed;
}

}  // namespace sage
