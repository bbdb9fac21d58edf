#include "training/dropout/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "selection/registry.h"
#include "training/selection_schedule.h"

namespace sage {
namespace {

constexpr std::array<std::pair<const char*, DropoutMode>, 7> modes{{{"none", DropoutMode::none},
                                                                    {"dbpd", DropoutMode::dbpd},
                                                                    {"smrd", DropoutMode::smrd},
                                                                    {"srd", DropoutMode::srd},
                                                                    {"psmrd", DropoutMode::psmrd},
                                                                    {"apd", DropoutMode::apd},
                                                                    {"infobatch", DropoutMode::infobatch}}};

void expect(bool fits, const char* key, double value, const char* expected) {
  if (!fits) throw ConfigError(fmt::format("dropout.{} is {}: expected {}", key, value, expected));
}

void check_together(const Config& config) {
  const std::string mode = config.dropout.mode;
  if (config.training.cuda_graph) {
    throw ConfigError(
        fmt::format("training.cuda_graph replays steps of one shape, and dropout.mode {} trains on a part that differs "
                    "from step to "
                    "step: set training.cuda_graph=false, or dropout.mode=none",
                    mode));
  }
  if (config.selection.mode != "none" && config.selection.method == "crest") {
    throw ConfigError(fmt::format(
        "selection.method crest chooses every batch itself, and dropout.mode {} a part of each: leave one of them out",
        mode));
  }
  if (selects_at_all(config.selection) && wants_forgetting(config.selection) && config.selection.scorer != "proxy") {
    throw ConfigError(fmt::format(
        "selection.method {} watches how every example is predicted in training, and dropout.mode {} leaves "
        "some out: set selection.scorer=proxy, whose training is watched instead",
        config.selection.method, mode));
  }
  const auto& augment = config.data.augment;
  if (augment.cutmix.enabled || augment.mixup.enabled) {
    throw ConfigError(
        fmt::format("data.augment.{} mixes images of different classes, and dropout.mode {} asks how well each single "
                    "one is known: "
                    "leave one of them out",
                    augment.cutmix.enabled ? "cutmix" : "mixup", mode));
  }
}

void expect_all_classes(const Experiment& experiment) {
  const std::vector<std::int64_t> counts = experiment.class_counts();
  const auto absent = std::find(counts.begin(), counts.end(), 0);
  if (absent == counts.end()) return;
  const auto c = static_cast<std::size_t>(absent - counts.begin());
  const auto& names = experiment.dataset.class_names;
  throw ConfigError(
      fmt::format("dropout.mode is apd, which measures the difficulty of every class, but class {}{} has no example to "
                  "train on: use another mode, or data that hold every class",
                  c, c < names.size() ? fmt::format(" ({})", names[c]) : std::string()));
}

}  // namespace

DropoutMode to_dropout_mode(const std::string& name) {
  for (const auto& [known, mode] : modes) {
    if (name == known) return mode;
  }
  throw ConfigError(fmt::format("dropout.mode is '{}': expected none, dbpd, smrd, srd, psmrd, apd or infobatch", name));
}

HardRule to_hard_rule(const DropoutConfig& config) {
  if (config.hard_rule == "auto") {
    return config.mode == "psmrd" || config.mode == "apd" ? HardRule::either : HardRule::true_class;
  }
  return config.hard_rule == "either" ? HardRule::either : HardRule::true_class;
}

std::int64_t revision_epoch(const DropoutConfig& config, std::int64_t epochs) {
  if (config.start_revision >= 0) return config.start_revision;
  if (config.mode != "infobatch") return epochs - 1;
  // The last anneal x epochs; the tolerance keeps 0.2 x 5 from being a bit more than 1.
  return epochs - static_cast<std::int64_t>(std::ceil(config.anneal * static_cast<double>(epochs) - 1e-9));
}

void check_dropout(const Experiment& experiment) {
  const DropoutConfig& config = experiment.config.dropout;
  const DropoutMode mode = to_dropout_mode(config.mode);
  expect(config.threshold >= 0.0 && config.threshold < 1.0, "threshold", config.threshold,
         "a probability in [0, 1); 0 asks for what is misclassified");
  expect(config.start_revision >= -1, "start_revision", static_cast<double>(config.start_revision),
         "an epoch from 0, or -1 for the last one");
  expect(config.gamma > 0.0 && config.gamma <= 1.0, "gamma", config.gamma, "a number above 0, at most 1");
  expect(config.ema_alpha > 0.0 && config.ema_alpha <= 1.0, "ema_alpha", config.ema_alpha,
         "a number above 0, at most 1");
  expect(config.epsilon > 0.0 && std::isfinite(config.epsilon), "epsilon", config.epsilon, "a number above 0");
  expect(config.prune >= 0.0 && config.prune < 1.0, "prune", config.prune, "a probability in [0, 1)");
  expect(config.anneal >= 0.0 && config.anneal <= 1.0, "anneal", config.anneal, "a number in [0, 1]");
  if (mode == DropoutMode::none) return;
  check_together(experiment.config);
  if (mode == DropoutMode::apd) expect_all_classes(experiment);
}

std::string dropout_warning(const DropoutConfig& config, std::int64_t epochs) {
  if (config.mode == "none") return {};
  // Of infobatch the first epoch knows no losses, and keeps all.
  const std::int64_t first_choice = config.mode == "infobatch" ? 1 : 0;
  if (config.start_revision != 0 && std::min(revision_epoch(config, epochs), epochs) <= first_choice) {
    const std::string run = fmt::format("the run has {} epoch{}", epochs, epochs == 1 ? "" : "s");
    if (first_choice == 0) {
      return fmt::format(
          "dropout.mode {} never leaves anything out: {}, and the last one trains on everything; give it more "
          "(training.epochs), or set dropout.start_revision={} for none on everything",
          config.mode, run, epochs);
    }
    return fmt::format(
        "dropout.mode {} never leaves anything out: {}, none of them between the first, which knows no losses yet, and "
        "those on everything (dropout.anneal is {}, dropout.start_revision {}); give it more (training.epochs), lower "
        "dropout.anneal, or set dropout.start_revision above 1",
        config.mode, run, config.anneal, config.start_revision);
  }
  if (config.start_revision < epochs) return {};
  return fmt::format(
      "dropout.start_revision is {}, but the run has {} epochs: none of them trains on everything; -1 stands for the "
      "last one",
      config.start_revision, epochs);
}

}  // namespace sage
