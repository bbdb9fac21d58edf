#include "models/weights.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

#include "core/error.h"

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

void load_state(Module& model, std::span<const NamedTensor> state) {
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
    throw CheckpointError("the weights are not those of this model" + list("missing", missing) +
                          list("unexpected", unexpected) + list("of a wrong shape", wrong) +
                          "; give the model.name, model.width and data set with which they were trained");
  }
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < live.size(); ++i) live[i].tensor.copy_(*sources[i]);
}

void copy_parameters(const Module& from, Module& to) { load_state(to, live_state(from)); }

}  // namespace sage
