// `sage features`: what a trained network sees in each example, for visualisation and for methods of one's own.
#pragma once
#include <string>
#include <vector>

#include "distributed/runtime.h"

namespace sage {

struct FeaturesOptions {
  std::string checkpoint;              ///< file or run folder, as `sage evaluate` takes it
  std::string split = "train";         ///< train | test
  std::string subset;                  ///< epoch_N_indices.json whose ids count as kept; empty: the run folder's
  std::string out;                     ///< folder; empty: <run folder>/features
  bool overwrite = false;              ///< replace files that are there
  std::vector<std::string> overrides;  ///< key=value, for example data.path=...
};

/// ALL ranks. Writes features_SPLIT.safetensors, or several features_SPLIT_K_of_M.safetensors: `features` [n, F] and
/// `probabilities` [n, C] (float32), `labels` as trained on, `ids` (int64) and, of the train split, `kept` (uint8; all
/// 1 where the run trained on everything). Rows ascend by id; examples held out for validation are left out. The rows
/// are the same bits on any number of ranks with as many threads each. Every rank holds at most 256 MiB of rows at a
/// time and sends as much. Returns the exit status. Throws ConfigError where files are in the way.
int features_command_main(Runtime& runtime, const FeaturesOptions& options);

}  // namespace sage
