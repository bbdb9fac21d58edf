#include "training/selection_schedule.h"

#include <algorithm>

namespace sage {

bool is_crest(const SelectionConfig& config) { return config.mode != "none" && config.method == "crest"; }

bool selects_at_all(const SelectionConfig& config) {
  return config.mode != "none" && config.method != "crest" && config.method != "full" && config.fraction < 1.0;
}

bool selects_before(const SelectionConfig& config, std::int64_t epoch) {
  if (!selects_at_all(config)) return false;
  const std::int64_t first = config.no_warmup ? 0 : config.warmup_epochs;
  if (epoch == first) return true;
  return config.mode == "iterative" && epoch > first && (epoch - first) % config.refresh_epochs == 0;
}

std::vector<std::int64_t> steps_of_epochs(const Config& config, std::int64_t full_steps, std::int64_t subset_steps) {
  std::vector<std::int64_t> steps;
  std::int64_t done = 0;
  bool selected = false;
  for (std::int64_t epoch = 0;; ++epoch) {
    if (config.training.steps > 0 ? done >= config.training.steps : epoch >= config.training.epochs) return steps;
    selected = selected || selects_before(config.selection, epoch);
    std::int64_t next = selected ? subset_steps : full_steps;
    if (config.training.steps > 0) next = std::min(next, config.training.steps - done);
    steps.push_back(next);
    done += next;
  }
}

}  // namespace sage
