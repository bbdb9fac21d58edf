// dropout.*: what it means, and what is refused.
#pragma once
#include <cstdint>
#include <string>

#include "core/config.h"
#include "training/dropout/policies.h"
#include "training/experiment.h"

namespace sage {

enum class DropoutMode { none, dbpd, smrd, srd, psmrd, apd, infobatch };
/// By the name of dropout.mode. Throws ConfigError for an unknown one.
DropoutMode to_dropout_mode(const std::string& name);

/// dropout.hard_rule; auto: `either` for psmrd and apd, else `true_class`.
HardRule to_hard_rule(const DropoutConfig& config);

/// The first epoch (from 0) that trains on everything, of `epochs`; may lie past the last one.
std::int64_t revision_epoch(const DropoutConfig& config, std::int64_t epochs);

/// Throws ConfigError for dropout.* out of range and for what cannot go together with dropout; for `apd` also where a
/// class has no example to train on.
void check_dropout(const Experiment& experiment);
/// What is allowed but hardly meant; empty where there is nothing to say.
std::string dropout_warning(const DropoutConfig& config, std::int64_t epochs);

}  // namespace sage
