#include "models/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "core/config_keys.h"
#include "core/error.h"

namespace sage {
namespace {

constexpr std::int64_t largest_width = 8192;

constexpr std::array<ModelEntry, 5> table{{
    {"cnn", "", "three 3x3 convolutions with batch normalisation, 128 features", 4, true, make_cnn},
    {"mlp", "", "two hidden layers of 256 units", 1, true, make_mlp},
    {"resnet20", "", "ResNet-20 for CIFAR, 64 features", 4, false, make_resnet20},
    {"resnet18", "", "ResNet-18 with a stem for small images, 512 features", 8, false, make_resnet18},
    {"resnext29_32x4d", "resnext", "ResNeXt-29 with 32 groups of 4 channels, 1,024 features", 4, false,
     make_resnext29_32x4d},
}};

}  // namespace

std::span<const ModelEntry> model_table() { return table; }

const ModelEntry& find_model(std::string_view name) {
  std::vector<std::string> names, shown;
  for (const ModelEntry& entry : table) {
    if (name == entry.name || (!entry.alias.empty() && name == entry.alias)) return entry;
    names.emplace_back(entry.name);
    if (!entry.alias.empty()) names.emplace_back(entry.alias);
    shown.push_back(entry.alias.empty() ? std::string(entry.name) : fmt::format("{} (or {})", entry.name, entry.alias));
  }
  const std::string near = nearest_name(std::string(name), names);
  throw ConfigError(fmt::format("model.name: there is no model '{}'{}. Models: {}", name,
                                near.empty() ? "" : fmt::format("; did you mean '{}'?", near), fmt::join(shown, ", ")));
}

std::unique_ptr<Classifier> make_model(const ModelConfig& config, const InputShape& input_shape,
                                       std::int64_t class_count, std::uint64_t seed, BatchNormFunction batch_norm) {
  const ModelEntry& entry = find_model(config.name);
  const InputShape& shape = input_shape;
  if (shape.channels < 1 || std::min(shape.height, shape.width) < entry.smallest_side) {
    throw ConfigError(
        fmt::format("model.name: {} takes images of at least 1 channel and {}x{} pixels, but the data set has "
                    "{} channels and {}x{} pixels; choose another model or data set",
                    entry.name, entry.smallest_side, entry.smallest_side, shape.channels, shape.height, shape.width));
  }
  if (class_count < 2) {
    throw ConfigError(
        fmt::format("model.name: a classifier wants at least 2 classes, but the data set has {}", class_count));
  }
  if (config.width < 0 || config.width > largest_width) {
    throw ConfigError(fmt::format("model.width: {} is not between 1 and {} (0: the architecture's own)", config.width,
                                  largest_width));
  }
  if (config.width > 0 && !entry.has_width) {
    throw ConfigError(
        fmt::format("model.width: {} has one fixed width; leave model.width at 0, or choose cnn or mlp", entry.name));
  }
  std::unique_ptr<Classifier> model =
      entry.make(ModelArguments{shape, class_count, config.width, std::move(batch_norm)});
  initialize_parameters(*model, seed);
  return model;
}

}  // namespace sage
