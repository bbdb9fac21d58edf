// What happens to a training image at random, and the way from bytes to the network's input.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/config.h"
#include "data/augment_kernel.h"
#include "data/image_source.h"
#include "data/mixing.h"

namespace sage {

struct AugmentOptions {
  std::int64_t crop = 0;  ///< pixels of reflect padding on each side before a crop of the original size; 0: no crop
  bool flip = false;      ///< mirror left and right, every second time
  bool random_resized_crop = false;    ///< a random part, brought to the image's size
  double min_scale = 0.08;             ///< random_resized_crop: smallest part of the area
  std::int64_t randaugment = 0;        ///< operations of RandAugment
  double randaugment_magnitude = 9.0;  ///< 0 to 30
  double erasing = 0.0;                ///< probability of erasing a rectangle
  MixOptions mix = {};                 ///< of batches; what is below concerns single images

  /// Whether the bytes of an image are changed before they become numbers, which the CPU does.
  bool changes_bytes() const { return random_resized_crop || randaugment > 0; }
};
AugmentOptions to_augment_options(const DataConfig::Augment& config);

/// Throws ConfigError unless 0 <= crop < min(height, width): reflection cannot reach further; or for a crop together
/// with a random part.
void check_augment_options(const AugmentOptions& options, ImageSize size);

/// Options with what else the choices depend on. Each choice is a pure function of (seed, epoch, example id), so it
/// depends neither on the number of ranks nor on workers or batch size. In this order: random part, crop, flip,
/// RandAugment, normalisation, erasing.
struct Augmentation {
  AugmentOptions options;
  std::uint64_t seed = 0;
  std::int64_t epoch = 0;
};

/// Crop, flip and erasing for an image of `size`. Shifts are uniform in [-crop, crop]. The rectangle is torchvision's
/// RandomErasing (Zhong et al., AAAI 2020): 2 to 33 % of the area, aspect ratio 0.3 to 3.3.
AugmentChoice choose_augmentation(const Augmentation& augmentation, std::int64_t id, ImageSize size);

/// random_resized_crop for a whole image of `whole`: torchvision's RandomResizedCrop (Szegedy et al., CVPR 2015):
/// min_scale to 1 of the area, aspect ratio 3/4 to 4/3; the middle if ten draws do not fit.
PixelBox choose_part(const Augmentation& augmentation, std::int64_t id, ImageSize whole);

/// Per channel c and byte v: (v / 255 - mean[c]) / deviation[c].
class Normalization {
 public:
  Normalization(std::span<const float> mean, std::span<const float> deviation);
  std::int64_t channels() const { return static_cast<std::int64_t>(table_.size()) / 256; }
  /// 256 values.
  const float* table(std::int64_t channel) const { return table_.data() + channel * 256; }

 private:
  std::vector<float> table_;
};

/// Writes images `ids` of `images` (uint8 [N, C, H, W], contiguous, CPU) as float32 into `output` ([ids.size(), C, H,
/// W], CPU, contiguous or channels_last). Output pixel (y, x) is the source pixel (y + shift_y, x' + shift_x) with x' =
/// W - 1 - x if flipped, reflected at the border (which is not repeated); erased pixels are 0. `choices`: one per id,
/// or empty for none. `parallel` spreads the examples over the threads of the process; the values do not depend on it.
void prepare_images(const at::Tensor& images, std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices,
                    const Normalization& normalization, at::Tensor& output, bool parallel);

/// Crop and flip of prepare_images, on the bytes [channels, height, width] of one image.
void shift_and_flip(const std::uint8_t* source, std::int64_t channels, ImageSize size, const AugmentChoice& choice,
                    std::uint8_t* target);

}  // namespace sage
