#include "training/checkpoint.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/bounded_json.h"
#include "core/config_keys.h"
#include "core/error.h"
#include "core/safetensors.h"
#include "core/text.h"

namespace sage {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// '/' never stands in a model's dotted names. Beside the weights of the network:
//   training/subset_ids
//   training/optimizer/NAME, training/learner/RANK/NAME, training/buffers/RANK/NAME     of the network
//   training/proxy/model/NAME, training/proxy/optimizer/NAME, ...                       the same of the proxy
//   training/subset_weights
//   training/selection/NAME, training/crest/NAME, training/dropout/NAME
//   training/memory/NAME
constexpr std::string_view kTraining = "training/", kProxy = "proxy/", kModel = "model/", kOptimizer = "optimizer/",
                           kLearner = "learner/", kBuffers = "buffers/", kSelection = "selection/", kCrest = "crest/",
                           kDropout = "dropout/", kMemory = "memory/", kSubset = "subset_ids",
                           kWeights = "subset_weights";
constexpr std::string_view kStateKey = "sage.state";
constexpr std::string_view kConfigKey = "sage.config";
constexpr int kFormat = 2;
constexpr std::int64_t kMostRanks = 1 << 20;

json to_json(const TrainingPosition& position) {
  return {{"epoch", position.epoch},
          {"step", position.step},
          {"order_position", position.order_position},
          {"examples", position.examples}};
}

std::int64_t count_at(const json& from, const char* key, std::int64_t low = 0) {
  return whole_number(from.at(key), key, low);
}

TrainingPosition position_from_json(const json& from) {
  return {.epoch = count_at(from, "epoch"),
          .step = count_at(from, "step"),
          .order_position = count_at(from, "order_position"),
          .examples = count_at(from, "examples")};
}

json state_to_json(const TrainingState& state, CheckpointContent content) {
  json result = to_json(state.position);
  result.update({{"format", kFormat},
                 {"complete", content == CheckpointContent::everything},
                 {"model", state.model},
                 {"dataset", state.dataset},
                 {"class_count", state.class_count},
                 {"seed", state.seed},
                 {"global_batch", state.global_batch},
                 {"selection_round", state.selection_round},
                 {"selection_epoch", state.selection_epoch},
                 {"seconds", state.seconds},
                 {"selection_seconds", state.selection_seconds},
                 {"best_accuracy", nullptr},
                 {"best_epoch", state.best_epoch},
                 {"proxy_position", to_json(state.proxy_position)},
                 {"proxy_seconds", state.proxy_seconds},
                 {"selection", nullptr}});
  if (state.best_accuracy) result["best_accuracy"] = *state.best_accuracy;
  if (state.selection && content == CheckpointContent::everything) result["selection"] = state.selection->json;
  if (state.crest && content == CheckpointContent::everything) result["crest"] = state.crest->json;
  return result;
}

TrainingState state_from_json(const json& from) {
  TrainingState state;
  state.position = position_from_json(from);
  from.at("model").get_to(state.model);
  from.at("dataset").get_to(state.dataset);
  state.class_count = count_at(from, "class_count");
  if (!from.at("seed").is_number_unsigned()) throw JsonError("seed is not a whole number");
  from.at("seed").get_to(state.seed);
  state.global_batch = count_at(from, "global_batch");
  state.selection_round = count_at(from, "selection_round");
  state.selection_epoch = count_at(from, "selection_epoch", -1);
  from.at("seconds").get_to(state.seconds);
  from.at("selection_seconds").get_to(state.selection_seconds);
  if (!from.at("best_accuracy").is_null()) state.best_accuracy = from["best_accuracy"].get<double>();
  state.best_epoch = count_at(from, "best_epoch");
  state.proxy_position = position_from_json(from.at("proxy_position"));
  from.at("proxy_seconds").get_to(state.proxy_seconds);
  if (!from.at("selection").is_null()) state.selection = SelectionState{from["selection"].get<std::string>(), {}};
  if (from.contains("crest")) state.crest = SelectionState{from["crest"].get<std::string>(), {}};
  return state;
}

// ------------------------------------------------------------------------------------------- tensors into the file

void append(std::vector<NamedTensor>& to, const std::string& prefix, std::span<const NamedTensor> tensors) {
  for (const NamedTensor& tensor : tensors) to.push_back({prefix + tensor.name, tensor.tensor});
}

/// All but the weights.
void append_learner(std::vector<NamedTensor>& to, const std::string& prefix, const LearnerState& learner) {
  append(to, fmt::format("{}{}", prefix, kOptimizer), learner.optimizer);
  for (std::size_t rank = 0; rank < learner.ranks.size(); ++rank) {
    append(to, fmt::format("{}{}{}/", prefix, kLearner, rank), learner.ranks[rank].learner);
    append(to, fmt::format("{}{}{}/", prefix, kBuffers, rank), learner.ranks[rank].buffers);
  }
}

void append_training(std::vector<NamedTensor>& to, const TrainingState& state) {
  const std::string training(kTraining);
  append_learner(to, training, state.learner);
  if (state.proxy) {
    append(to, fmt::format("{}{}{}", kTraining, kProxy, kModel), state.proxy->model);
    append_learner(to, fmt::format("{}{}", kTraining, kProxy), *state.proxy);
  }
  append(to, fmt::format("{}{}", kTraining, kDropout), state.dropout);
  if (state.selection) append(to, fmt::format("{}{}", kTraining, kSelection), state.selection->tensors);
  if (state.crest) append(to, fmt::format("{}{}", kTraining, kCrest), state.crest->tensors);
  append(to, fmt::format("{}{}", kTraining, kMemory), state.memory);
}

at::Tensor to_tensor(const std::vector<std::int64_t>& ids) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(ids.size())}, at::TensorOptions().dtype(at::kLong));
  std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

at::Tensor to_tensor(const std::vector<float>& weights) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(weights.size())}, at::TensorOptions().dtype(at::kFloat));
  std::copy(weights.begin(), weights.end(), tensor.mutable_data_ptr<float>());
  return tensor;
}

// ----------------------------------------------------------------------------------------------- and out of it

/// Takes `prefix` off the beginning of `text`, if it is there.
bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::vector<std::int64_t> to_ids(const at::Tensor& tensor, const fs::path& path) {
  if (tensor.dim() != 1 || tensor.scalar_type() != at::kLong) {
    throw CheckpointError(fmt::format("cannot use {}: the subset is not a list of int64", path.string()));
  }
  const auto* ids = tensor.const_data_ptr<std::int64_t>();
  return {ids, ids + tensor.numel()};
}

std::vector<float> to_weights(const at::Tensor& tensor, const fs::path& path) {
  if (tensor.dim() != 1 || tensor.scalar_type() != at::kFloat) {
    throw CheckpointError(
        fmt::format("cannot use {}: the weights of the subset are not a list of float32", path.string()));
  }
  const auto* weights = tensor.const_data_ptr<float>();
  return {weights, weights + tensor.numel()};
}

/// `rest` is what follows the prefix of a learner. False if it is nothing of a learner.
bool put_into_learner(LearnerState& learner, std::string_view rest, const at::Tensor& tensor) {
  if (take(rest, kModel)) {
    learner.model.push_back({std::string(rest), tensor});
    return true;
  }
  if (take(rest, kOptimizer)) {
    learner.optimizer.push_back({std::string(rest), tensor});
    return true;
  }
  const bool is_learner = take(rest, kLearner);
  if (!is_learner && !take(rest, kBuffers)) return false;
  std::int64_t rank = 0;
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), rank);
  if (error != std::errc() || stop == rest.data() + rest.size() || *stop != '/' || rank < 0 || rank > kMostRanks) {
    return false;
  }
  rest.remove_prefix(static_cast<std::size_t>(stop + 1 - rest.data()));
  if (learner.ranks.size() <= static_cast<std::size_t>(rank)) learner.ranks.resize(static_cast<std::size_t>(rank) + 1);
  RankState& of_rank = learner.ranks[static_cast<std::size_t>(rank)];
  (is_learner ? of_rank.learner : of_rank.buffers).push_back({std::string(rest), tensor});
  return true;
}

/// `name` without "training/".
void put_into_state(TrainingState& state, std::string_view name, const at::Tensor& tensor, const fs::path& path) {
  std::string_view rest = name;
  if (rest == kSubset) {
    state.subset_ids = to_ids(tensor, path);
    return;
  }
  if (rest == kWeights) {
    state.subset_weights = to_weights(tensor, path);
    return;
  }
  if (take(rest, kMemory)) {
    state.memory.push_back({std::string(rest), tensor});
    return;
  }
  if (take(rest, kSelection) && state.selection) {
    state.selection->tensors.push_back({std::string(rest), tensor});
    return;
  }
  if (take(rest, kCrest) && state.crest) {
    state.crest->tensors.push_back({std::string(rest), tensor});
    return;
  }
  if (take(rest, kDropout)) {
    state.dropout.push_back({std::string(rest), tensor});
    return;
  }
  if (take(rest, kProxy)) {
    if (!state.proxy) state.proxy.emplace();
    if (put_into_learner(*state.proxy, rest, tensor)) return;
  } else if (!rest.starts_with(kModel) && put_into_learner(state.learner, rest, tensor)) {
    return;
  }
  throw CheckpointError(fmt::format("cannot use {}: '{}{}' is not known here", path.string(), kTraining, name));
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ", "));
}

}  // namespace

bool TrainingState::has_begun_selection() const { return selection || (proxy && !proxy->optimizer.empty()); }

bool TrainingState::is_between_epochs() const {
  return position.order_position == 0 && selection_epoch != position.epoch && !has_begun_selection();
}

void write_checkpoint(const fs::path& path, const TrainingState& state, CheckpointContent content) {
  std::vector<NamedTensor> tensors = state.learner.model;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.find('/') != std::string::npos) {
      throw InternalError(fmt::format("'{}': a model's names cannot hold '/'", tensor.name));
    }
  }
  if (content == CheckpointContent::everything) {
    require(!state.learner.optimizer.empty(), "write_checkpoint: a complete checkpoint needs the optimizer's state");
    append_training(tensors, state);
  }
  if (state.subset_ids) tensors.push_back({fmt::format("{}{}", kTraining, kSubset), to_tensor(*state.subset_ids)});
  if (!state.subset_weights.empty()) {
    tensors.push_back({fmt::format("{}{}", kTraining, kWeights), to_tensor(state.subset_weights)});
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
    const json from = parse_json<json>(text->second, {.bytes = text->second.size()});
    const std::int64_t format = count_at(from, "format");
    if (format != kFormat) {
      throw CheckpointError(
          fmt::format("cannot use {}: its format is {}, this program reads {}", path.string(), format, kFormat));
    }
    from.at("complete").get_to(complete);
    state = state_from_json(from);
  } catch (const JsonError& error) {
    throw CheckpointError(fmt::format("cannot use {}: its state is not as expected ({})", path.string(), error.what()));
  } catch (const json::exception& error) {
    throw CheckpointError(
        fmt::format("cannot use {}: its state is not as expected ({})", path.string(), excerpt(error.what(), 300)));
  }
  state.config_json = config->second;
  for (const NamedTensor& tensor : file.tensors) {
    std::string_view name = tensor.name;
    if (take(name, kTraining)) {
      put_into_state(state, name, tensor.tensor, path);
    } else {
      state.learner.model.push_back(tensor);
    }
  }
  if (!state.subset_weights.empty() && (!state.subset_ids || state.subset_ids->size() != state.subset_weights.size())) {
    throw CheckpointError(fmt::format("cannot use {}: it holds {} weights for {} examples of a subset", path.string(),
                                      state.subset_weights.size(), state.subset_ids ? state.subset_ids->size() : 0));
  }
  if (complete != !state.learner.optimizer.empty()) {
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
  compare("model.stem", there.model.stem, config.model.stem);  // not always in the shapes of weights
  compare("data.labels", there.data.labels, config.data.labels);
  compare("data.image_size", there.data.image_size, config.data.image_size);
  compare("data.corrupt_images", there.data.corrupt_images, config.data.corrupt_images);
  compare("data.validation_fraction", there.data.validation_fraction, config.data.validation_fraction);
  compare("data.corrupt_labels", there.data.corrupt_labels, config.data.corrupt_labels);
  compare("data.corrupt_kind", there.data.corrupt_kind, config.data.corrupt_kind);
  compare("data.human_labels", there.data.human_labels, config.data.human_labels);
  compare("data.minority_downsample", there.data.minority_downsample, config.data.minority_downsample);
  compare("data.long_tail", there.data.long_tail, config.data.long_tail);
  // Of a run with crest or without it there is no way to the other.
  if (state.crest.has_value() != (config.selection.method == "crest" && config.selection.mode != "none")) {
    compare("selection.method", fmt::format("{} (selection.mode {})", there.selection.method, there.selection.mode),
            fmt::format("{} (selection.mode {})", config.selection.method, config.selection.mode));
  }
  // What is begun has to be ended in the same way.
  Config copy_there = there, copy_here = config;
  const auto rows_there = config_keys(copy_there), rows_here = config_keys(copy_here);
  for (std::size_t i = 0; i < rows_here.size(); ++i) {
    const std::string& name = rows_here[i].name;
    if (((state.has_begun_selection() || state.crest) && name.starts_with("selection.")) ||
        (state.position.order_position > 0 && name.starts_with("dropout."))) {
      compare(name.c_str(), rows_there[i].get().dump(), rows_here[i].get().dump());
    }
  }
  if (differences.empty()) return;
  throw CheckpointError(
      fmt::format("{} cannot go on: {}. A run resumes on the same examples in the same order; give the "
                  "values it was made with, or start a new run",
                  path.string(), fmt::join(differences, ", ")));
}

void check_examples(const TrainingState& state, const fs::path& path, std::span<const std::int64_t> candidates) {
  const auto refuse = [&](const std::string& what) {
    throw CheckpointError(fmt::format("cannot use {}: {}; resume from another checkpoint", path.string(), what));
  };
  const std::int64_t done = std::max(state.position.order_position, state.proxy_position.order_position);
  if (done > static_cast<std::int64_t>(candidates.size())) {
    refuse(fmt::format("it stands at example {} of an epoch, and there are {}", done, candidates.size()));
  }
  for (const float weight : state.subset_weights) {
    if (!std::isfinite(weight) || weight < 0.0F) refuse(fmt::format("it gives an example the weight {}", weight));
  }
  if (!state.subset_ids) return;
  const auto& ids = *state.subset_ids;
  const auto unordered = std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>());
  if (unordered != ids.end()) refuse(fmt::format("its subset is not in ascending order at id {}", *unordered));
  std::vector<std::int64_t> unknown;
  std::set_difference(ids.begin(), ids.end(), candidates.begin(), candidates.end(), std::back_inserter(unknown));
  if (unknown.empty()) return;
  refuse(fmt::format("its subset holds {} ids that are no training examples of this run, {} the first", unknown.size(),
                     unknown.front()));
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

}  // namespace sage
