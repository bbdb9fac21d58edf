// RandAugment (Cubuk et al., NeurIPS 2020): some operations drawn at random, all of one strength.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "data/image_decoder.h"

namespace sage {

/// The operations of torchvision's RandAugment, in its order.
enum class ImageOperation {
  identity,
  shear_x,
  shear_y,
  translate_x,
  translate_y,
  rotate,
  brightness,
  color,
  contrast,
  sharpness,
  posterize,
  solarize,
  auto_contrast,
  equalize,
};
inline constexpr int image_operation_count = 14;

/// One operation with its strength in its own units: a tangent (shear), pixels (translate), degrees (rotate), a change
/// of the factor 1 (brightness, color, contrast, sharpness), bits that are kept (posterize), a threshold (solarize).
struct ImageChange {
  ImageOperation operation = ImageOperation::identity;
  double strength = 0.0;
};

/// `count` operations for one example, a pure function of (seed, epoch, id). `magnitude`: 0 to 30, with torchvision's
/// scale for each operation; where it has two directions, one is drawn.
std::vector<ImageChange> choose_changes(std::int64_t count, double magnitude, std::uint64_t seed, std::int64_t epoch,
                                        std::int64_t id, ImageSize size);

/// Applies an operation to the planes [channels, height, width] of one image in place, with 1 or 3 channels: bit for
/// bit what torchvision does with a PIL image (nearest neighbours, black outside). `scratch` is memory for one more
/// image.
void apply_change(const ImageChange& change, std::uint8_t* planes, std::int64_t channels, ImageSize size,
                  std::vector<std::uint8_t>& scratch);

}  // namespace sage
