// The record of what was done to the data on purpose: labels made wrong, examples left out.
#pragma once
#include <string>

#include "training/experiment.h"

namespace sage {

/// JSON text for data_changes.json, as docs/run_folder.md describes it: ids with the label that they have and the one
/// that is true, the rate, and what was dropped by which setting. Empty where nothing was changed.
std::string data_changes_json(const Experiment& experiment);

}  // namespace sage
