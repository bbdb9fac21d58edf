#include "training/crest/crest_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "selection/quota.h"

namespace sage {
namespace {

void check_companions(const Config& config) {
  const auto refuse = [](const char* key, const std::string& value, const char* why) {
    throw ConfigError(fmt::format("{} is {}, but selection.method crest {}", key, value, why));
  };
  if (config.training.loss != "cross_entropy") {
    refuse("training.loss", config.training.loss, "models the cross entropy: set training.loss=cross_entropy");
  }
  if (config.dropout.mode != "none") {
    refuse("dropout.mode", config.dropout.mode, "chooses its batches by itself: set dropout.mode=none");
  }
  for (const auto& [key, is_on] : {std::pair("data.augment.cutmix.enabled", config.data.augment.cutmix.enabled),
                                   std::pair("data.augment.mixup.enabled", config.data.augment.mixup.enabled)}) {
    if (is_on) refuse(key, "true", "weighs each example by itself, and mixing puts two into one: set it to false");
  }
  if (config.training.cuda_graph) {
    refuse("training.cuda_graph", "true", "weighs its examples, which a recorded step does not: set it to false");
  }
}

}  // namespace

CrestPlan plan_crest(const Experiment& experiment) {
  check_companions(experiment.config);
  const auto& config = experiment.config.selection.crest;
  const auto count = static_cast<std::int64_t>(experiment.candidates.size());
  const std::int64_t classes = experiment.dataset.class_count;
  const auto size = static_cast<double>(count);
  CrestPlan plan;
  // A part that is meant to be whole (0.29 of 100) may lie a rounding below.
  const auto budget = static_cast<std::int64_t>(std::floor(size * config.train_fraction * (1 + 1e-12)));
  if (budget < 1) {
    throw ConfigError(
        fmt::format("selection.crest.train_fraction = {} of {} examples is a budget of no step: it must be at least "
                    "{:.2g}",
                    config.train_fraction, count, 1.0 / std::max(size, 1.0)));
  }
  plan.steps_per_epoch = experiment.steps_of(budget);
  plan.set_size = std::max<std::int64_t>(1, std::llround(size * config.random_set));
  plan.of_each_class = (plan.set_size + classes - 1) / classes;
  plan.coreset_size = std::min(experiment.global_batch, plan.of_each_class * classes);
  plan.least_remaining =
      std::min(count, static_cast<std::int64_t>(std::ceil(size * config.min_remaining * (1 - 1e-12))));
  plan.first_coresets =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(std::ceil(config.subset_factor)), 1, plan.steps_per_epoch);
  plan.most_forwarded = std::min(count, plan.steps_per_epoch * plan.of_each_class * classes);

  std::vector<std::int64_t> labels;
  labels.reserve(experiment.candidates.size());
  for (const std::int64_t id : experiment.candidates) labels.push_back(experiment.labels[static_cast<std::size_t>(id)]);
  const auto counts = count_classes(labels, classes);
  const auto smallest = std::min_element(counts.begin(), counts.end());
  if (*smallest < plan.of_each_class) {
    const auto which = static_cast<std::size_t>(smallest - counts.begin());
    const double most = static_cast<double>(*smallest * classes) / size;
    throw ConfigError(fmt::format(
        "class {} ({}) has {} examples to train on, but a random set of crest takes {} of each class "
        "(selection.crest.random_set = {} of {} examples): {}",
        which, experiment.dataset.class_names.size() > which ? experiment.dataset.class_names[which] : "no name",
        *smallest, plan.of_each_class, config.random_set, count,
        *smallest == 0
            ? std::string("crest needs examples of every class")
            : fmt::format("set selection.crest.random_set to at most {:.6g}", std::floor(most * 1e6) / 1e6)));
  }
  return plan;
}

}  // namespace sage
