#include <ATen/ops/zeros.h>

#include <set>
#include <string>

#include "core/safetensors.h"
#include "core/text.h"
#include "fuzz/targets.h"
#include "training/checkpoint.h"
#include "training/metrics.h"

namespace sage::fuzz {

void checkpoint_state(std::string_view bytes) {
  auto parts = split(bytes);
  parts.resize(std::min<std::size_t>(parts.size(), 10));
  const at::Tensor ids = at::zeros({1}, at::kLong);
  std::vector<NamedTensor> tensors{{"weight", ids}, {"training/optimizer/weight", ids}};
  std::set<std::string_view> names{"weight", "training/optimizer/weight", "__metadata__"};
  for (std::size_t i = 2; i < parts.size(); ++i) {
    const bool writable = parts[i].size() <= 4096 && first_non_text(parts[i]) == std::string_view::npos;
    if (writable && names.insert(parts[i]).second) {
      tensors.push_back({std::string(parts[i]), ids});
    }
  }
  std::map<std::string, std::string> metadata{{"format", "pt"}};
  const char* keys[] = {"sage.state", "sage.config"};
  for (std::size_t i = 0; i < 2 && i < parts.size(); ++i) {
    if (first_non_text(parts[i]) == std::string_view::npos)
      metadata[keys[i]] = parts[i];  // the writer takes UTF-8 only
  }
  const auto path = scratch() / "x.safetensors";
  write_safetensors(path, tensors, metadata);
  const TrainingState state = read_checkpoint(path);
  demand(state.position.epoch >= 0 && state.position.step >= 0 && state.class_count >= 0, "a negative count");
}

void metrics(std::string_view bytes) {
  put(scratch() / "metrics.json", bytes);
  constexpr std::int64_t all = std::int64_t{1} << 62;
  const Metrics metrics = Metrics::resume(scratch(), all, all);
  metrics.write();
  Metrics::resume(scratch(), all, all);
}

}  // namespace sage::fuzz
