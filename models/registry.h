// The networks by name.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/config.h"
#include "models/architectures.h"

namespace sage {

/// What `model.stem: auto` means.
enum class AutoStem {
  none,      ///< the network has one stem only; others are refused
  by_size,   ///< cifar where the image's smaller side is under 96 pixels, else imagenet
  imagenet,  ///< whatever the size: the published results on CIFAR are of this one
};

struct ModelEntry {
  std::string_view name;
  std::string_view alias;  ///< empty: none
  std::string_view description;
  std::int64_t smallest_side = 1;  ///< of an input image, in pixels
  bool has_width = false;          ///< whether `model.width` means something
  AutoStem auto_stem = AutoStem::none;
  std::unique_ptr<Classifier> (*make)(const ModelArguments&) = nullptr;
};

/// All networks, in the order in which they are listed to users.
std::span<const ModelEntry> model_table();

/// The entry of a name or alias. An unknown name is a ConfigError that lists the names and the nearest one.
const ModelEntry& find_model(std::string_view name);

/// Builds and initialises a network, on the CPU in float32 and training mode. Its parameters are a pure function of the
/// architecture and `seed`. `batch_norm` is given to every BatchNorm2d; empty: statistics of the local batch. Throws
/// ConfigError for an unknown name, a width or stem that the network has not, an input that does not suit it, or under
/// two classes.
std::unique_ptr<Classifier> make_model(const ModelConfig& config, const InputShape& input_shape,
                                       std::int64_t class_count, std::uint64_t seed, BatchNormFunction batch_norm = {});

}  // namespace sage
