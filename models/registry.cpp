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

constexpr std::int64_t smallest_large_side = 96;  // from here on `auto` is torchvision's stem

constexpr std::array<ModelEntry, 15> table{{
    {"cnn", "", "three 3x3 convolutions with batch normalisation, 128 features", 4, true, AutoStem::none, make_cnn},
    {"mlp", "", "two hidden layers of 256 units", 1, true, AutoStem::none, make_mlp},
    {"resnet20", "", "ResNet-20 for CIFAR, 64 features", 4, false, AutoStem::none, make_resnet20},
    {"resnet18", "", "ResNet-18, 512 features", 8, false, AutoStem::by_size, make_resnet18},
    {"resnet34", "", "ResNet-34, 512 features", 8, false, AutoStem::by_size, make_resnet34},
    {"resnet50", "", "ResNet-50, 2,048 features", 8, false, AutoStem::by_size, make_resnet50},
    {"resnext50_32x4d", "", "ResNeXt-50 with 32 groups of 4 channels, 2,048 features", 8, false, AutoStem::by_size,
     make_resnext50_32x4d},
    {"resnext29_32x4d", "resnext", "ResNeXt-29 with 32 groups of 4 channels, 1,024 features", 4, false, AutoStem::none,
     make_resnext29_32x4d},
    {"resnext29_2x64d", "", "ResNeXt-29 with 2 groups of 64 channels, 1,024 features", 4, false, AutoStem::none,
     make_resnext29_2x64d},
    {"resnext29_4x64d", "", "ResNeXt-29 with 4 groups of 64 channels, 2,048 features", 4, false, AutoStem::none,
     make_resnext29_4x64d},
    {"resnext29_8x64d", "", "ResNeXt-29 with 8 groups of 64 channels, 4,096 features", 4, false, AutoStem::none,
     make_resnext29_8x64d},
    {"mobilenet_v2", "", "MobileNetV2, 1,280 features", 4, false, AutoStem::imagenet, make_mobilenet_v2},
    {"efficientnet_b0", "", "EfficientNet-B0, 1,280 features", 4, false, AutoStem::imagenet, make_efficientnet_b0},
    {"vit_b_16", "", "ViT-B/16, 768 features", 16, false, AutoStem::none, make_vit_b_16},
    {"vit_tiny", "", "a vision transformer of 12 blocks for images from 8x8 on, 192 features", 4, false, AutoStem::none,
     make_vit_tiny},
}};

/// Throws ConfigError for a stem that the network does not have.
Stem stem_of(const ModelEntry& entry, const std::string& name, const InputShape& shape) {
  if (name == "auto") {
    const bool is_large = std::min(shape.height, shape.width) >= smallest_large_side;
    return entry.auto_stem == AutoStem::imagenet || is_large ? Stem::imagenet : Stem::cifar;
  }
  if (name != "cifar" && name != "imagenet") {
    throw ConfigError(fmt::format("model.stem: '{}' is not auto, cifar or imagenet", name));
  }
  if (entry.auto_stem == AutoStem::none) {
    std::vector<std::string_view> with_stems;
    for (const ModelEntry& other : table) {
      if (other.auto_stem != AutoStem::none) with_stems.push_back(other.name);
    }
    throw ConfigError(fmt::format("model.stem: {} has one stem; leave model.stem at auto, or choose one of {}",
                                  entry.name, fmt::join(with_stems, ", ")));
  }
  return name == "cifar" ? Stem::cifar : Stem::imagenet;
}

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
      entry.make({shape, class_count, config.width, stem_of(entry, config.stem, shape), std::move(batch_norm)});
  initialize_parameters(*model, seed);
  return model;
}

}  // namespace sage
