// Crest, into a checkpoint and out of it.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/error.h"
#include "core/text.h"
#include "training/crest/crest.h"

namespace sage {
namespace {

using Json = nlohmann::ordered_json;

/// Their names are "PART.NAME".
std::vector<NamedTensor> part_of(const std::vector<NamedTensor>& tensors, std::string_view part) {
  std::vector<NamedTensor> found;
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name.starts_with(part)) found.push_back(tensor);
  }
  return found;
}

template <class Value>
at::Tensor to_tensor(const std::vector<Value>& values, at::ScalarType type) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<Value>());
  return tensor;
}

template <class Value>
std::vector<Value> values_of(const std::vector<NamedTensor>& tensors, const std::string& name, at::ScalarType type) {
  for (const NamedTensor& tensor : tensors) {
    if (tensor.name != name) continue;
    if (tensor.tensor.dim() != 1 || tensor.tensor.scalar_type() != type) break;
    const Value* value = tensor.tensor.const_data_ptr<Value>();
    return {value, value + tensor.tensor.numel()};
  }
  throw CheckpointError(fmt::format("the checkpoint's state of crest lacks a usable '{}'", name));
}

}  // namespace

SelectionState Crest::state(HostCopies& copies) const {
  SelectionState state;
  if (!job_.is_lead()) return state;
  state.json =
      Json{{"selected_at", selected_at_},  {"interval", adaptation_.interval}, {"coresets", adaptation_.coresets},
           {"sets_drawn", sets_drawn_},    {"first_norm", first_norm_},        {"fits", model_.fits()},
           {"fitted_loss", model_.loss()}, {"epoch", to_json(epoch_)}}
          .dump();
  state.tensors = copies.copy(model_.tensors());
  for (auto& tensor : watch_.state()) state.tensors.push_back(std::move(tensor));
  std::vector<std::int64_t> sizes, ids;
  std::vector<float> weights;
  for (const Coreset& coreset : coresets_) {
    sizes.push_back(static_cast<std::int64_t>(coreset.ids.size()));
    ids.insert(ids.end(), coreset.ids.begin(), coreset.ids.end());
    weights.insert(weights.end(), coreset.weights.begin(), coreset.weights.end());
  }
  state.tensors.push_back({"coresets.sizes", to_tensor(sizes, at::kLong)});
  state.tensors.push_back({"coresets.ids", to_tensor(ids, at::kLong)});
  state.tensors.push_back({"coresets.weights", to_tensor(weights, at::kFloat)});
  state.tensors.push_back({"check_set", to_tensor(check_set_, at::kLong)});
  state.tensors.push_back({"excluded", to_tensor(remaining_.excluded(), at::kLong)});
  return state;
}

void Crest::restore(const SelectionState& state) {
  const auto refuse = [](const std::string& cause) {
    throw CheckpointError(fmt::format("the checkpoint's state of crest is not as expected: {}", cause));
  };
  std::int64_t fits = 0;
  double loss = 0.0;
  try {
    const Json from = parse_json<Json>(state.json);
    selected_at_ = whole_number(from.at("selected_at"), "selected_at", -1);
    adaptation_.interval = whole_number(from.at("interval"), "interval", 1, plan_.steps_per_epoch);
    adaptation_.coresets = whole_number(from.at("coresets"), "coresets", 1, plan_.steps_per_epoch);
    sets_drawn_ = whole_number(from.at("sets_drawn"), "sets_drawn");
    from.at("first_norm").get_to(first_norm_);
    fits = whole_number(from.at("fits"), "fits");
    from.at("fitted_loss").get_to(loss);
    epoch_ = crest_epoch_from_json(from.at("epoch"));
  } catch (const JsonError& error) {
    refuse(error.what());
  } catch (const Json::exception& error) {
    refuse(excerpt(error.what(), 300));
  }
  std::int64_t dimension = 0;
  for (const at::Tensor& parameter : parameters_) dimension += parameter.numel();
  model_.restore(part_of(state.tensors, "model."), fits, loss, dimension, job_.device);
  watch_.load_state(part_of(state.tensors, "watch."));

  const auto sizes = values_of<std::int64_t>(state.tensors, "coresets.sizes", at::kLong);
  const auto ids = values_of<std::int64_t>(state.tensors, "coresets.ids", at::kLong);
  const auto weights = values_of<float>(state.tensors, "coresets.weights", at::kFloat);
  const auto excluded = values_of<std::int64_t>(state.tensors, "excluded", at::kLong);
  check_set_ = values_of<std::int64_t>(state.tensors, "check_set", at::kLong);
  const auto is_candidate = [this](std::int64_t id) {
    return std::binary_search(experiment_.candidates.begin(), experiment_.candidates.end(), id);
  };
  if (ids.size() != weights.size() || !std::all_of(ids.begin(), ids.end(), is_candidate)) {
    refuse("its coresets hold other examples than the data set");
  }
  coresets_.clear();
  std::size_t begin = 0;
  for (const std::int64_t size : sizes) {
    if (size < 1 || size > experiment_.global_batch || begin + static_cast<std::size_t>(size) > ids.size()) {
      refuse("its coresets are of another size");
    }
    const auto first = static_cast<std::ptrdiff_t>(begin), last = static_cast<std::ptrdiff_t>(begin) + size;
    coresets_.push_back({{ids.begin() + first, ids.begin() + last}, {weights.begin() + first, weights.begin() + last}});
    begin += static_cast<std::size_t>(size);
  }
  if (begin != ids.size()) refuse("its coresets are of another size");
  if (!std::all_of(check_set_.begin(), check_set_.end(), is_candidate) ||
      (check_set_.empty() && fits > 0 && config_.compat == "paper")) {
    refuse("its check looks at other examples than the data set's");
  }
  if (!std::all_of(excluded.begin(), excluded.end(), is_candidate) ||
      remaining_.exclude(excluded).size() != excluded.size()) {
    refuse("it excludes more examples than selection.crest.min_remaining allows");
  }
}

}  // namespace sage
