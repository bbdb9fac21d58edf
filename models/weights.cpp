#include "models/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/safetensors.h"

namespace sage {
namespace {

std::vector<NamedTensor> live_state(const Module& model) {
  std::vector<NamedTensor> state = model.named_parameters();
  std::vector<NamedTensor> buffers = model.named_buffers();
  state.insert(state.end(), std::make_move_iterator(buffers.begin()), std::make_move_iterator(buffers.end()));
  return state;
}

/// "; 7 missing: a, b, c, d, e, ..." or nothing.
std::string list(const char* what, const std::vector<std::string>& names) {
  constexpr std::size_t most = 5;
  if (names.empty()) return {};
  const std::vector<std::string> shown(names.begin(),
                                       names.begin() + static_cast<std::ptrdiff_t>(std::min(most, names.size())));
  return fmt::format("; {} {}: {}{}", names.size(), what, fmt::join(shown, ", "), names.size() > most ? ", ..." : "");
}

std::string describe(const at::Tensor& tensor) {
  return fmt::format("[{}]{}", fmt::join(tensor.sizes(), ", "), tensor.is_floating_point() ? "" : " of integers");
}

bool fits(const at::Tensor& have, const at::Tensor& want) {
  return have.sizes() == want.sizes() && have.is_floating_point() == want.is_floating_point();
}

}  // namespace

std::vector<NamedTensor> copy_state(const Module& model) {
  const at::NoGradGuard no_grad;
  std::vector<NamedTensor> state = live_state(model);
  for (NamedTensor& entry : state) {
    entry.tensor = entry.tensor.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous);
  }
  return state;
}

void load_state(Module& model, std::span<const NamedTensor> state, const std::string& what, const std::string& advice) {
  std::map<std::string_view, const at::Tensor*> given;
  std::vector<std::string> missing, unexpected, wrong;
  for (const NamedTensor& entry : state) {
    if (!given.emplace(entry.name, &entry.tensor).second) unexpected.push_back(entry.name + " (twice)");
  }
  const std::vector<NamedTensor> live = live_state(model);
  std::vector<const at::Tensor*> sources;
  for (const NamedTensor& target : live) {
    const auto found = given.find(target.name);
    if (found == given.end()) {
      missing.push_back(target.name);
      continue;
    }
    if (!fits(*found->second, target.tensor)) {
      wrong.push_back(
          fmt::format("{} ({} instead of {})", target.name, describe(*found->second), describe(target.tensor)));
    }
    sources.push_back(found->second);
    given.erase(found);
  }
  for (const auto& [name, tensor] : given) unexpected.emplace_back(name);
  if (!missing.empty() || !unexpected.empty() || !wrong.empty()) {
    throw CheckpointError(what + " are not those of this model" + list("missing", missing) +
                          list("unexpected", unexpected) + list("of a wrong shape", wrong) + "; " + advice);
  }
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < live.size(); ++i) live[i].tensor.copy_(*sources[i]);
}

void copy_parameters(const Module& from, Module& to) { load_state(to, live_state(from)); }

std::vector<std::string> load_pretrained(Classifier& model, const std::filesystem::path& file) {
  TensorFile content;
  try {
    content = read_safetensors(file, Checksums::if_present);
  } catch (const CheckpointError& error) {
    throw CheckpointError(fmt::format("model.pretrained: {}", error.what()));
  }
  std::vector<NamedTensor> state;
  std::map<std::string, std::size_t> places;
  for (NamedTensor& entry : content.tensors) {
    if (entry.name.starts_with("training/")) continue;  // of a checkpoint: what is not the model's
    places.emplace(entry.name, state.size());
    state.push_back(std::move(entry));
  }
  const auto find = [&](const std::string& name) {
    const auto found = places.find(name);
    return found == places.end() ? nullptr : &state[found->second];
  };
  Linear& head = model.head();
  NamedTensor* weight = find(head.weight_name(model.head_name()));
  NamedTensor* bias = find(head.bias_name(model.head_name()));
  std::vector<std::string> left_out;
  if (weight != nullptr && bias != nullptr && weight->tensor.dim() == 2 &&
      weight->tensor.size(0) != model.class_count() && weight->tensor.size(1) == model.feature_count() &&
      bias->tensor.sizes() == weight->tensor.sizes().slice(0, 1)) {
    for (auto& [entry, own] : {std::pair(weight, &head.weight()), std::pair(bias, &head.bias())}) {
      left_out.push_back(fmt::format("{} ({} instead of {})", entry->name, describe(entry->tensor), describe(*own)));
      entry->tensor = own->detach().clone();
    }
  }
  for (const NamedTensor& buffer : model.named_buffers()) {
    if (buffer.name.ends_with(".num_batches_tracked") && find(buffer.name) == nullptr) {
      state.push_back({buffer.name, at::zeros_like(buffer.tensor)});
    }
  }
  load_state(model, state, fmt::format("model.pretrained: {}: the weights", file.string()),
             "choose the model.name and model.stem that the weights are of, and images of the size and channels that "
             "they were trained on");
  return left_out;
}

}  // namespace sage
