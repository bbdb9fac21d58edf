// From bytes to the network's input: scaling, normalisation, and for training a random crop and flip.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "data/augment_kernel.h"

namespace sage {

struct AugmentOptions {
  std::int64_t crop = 0;  ///< pixels of reflect padding on each side before a crop of the original size; 0: no crop
  bool flip = false;      ///< mirror left and right, every second time
  bool any() const { return crop > 0 || flip; }
};

/// Throws ConfigError unless 0 <= crop < min(height, width): reflection cannot reach further.
void check_augment_options(const AugmentOptions& options, std::int64_t height, std::int64_t width);

/// What happens to one example in one epoch: a pure function of (seed, epoch, example id), so it depends neither on
/// the number of ranks nor on workers or batch size. Shifts are uniform in [-crop, crop].
AugmentChoice choose_augmentation(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                                  std::int64_t id);
std::vector<AugmentChoice> choose_augmentations(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                                                std::span<const std::int64_t> ids);

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
/// W - 1 - x if flipped, reflected at the border (which is not repeated). `choices`: one per id, or empty for none.
/// `parallel` spreads the examples over the threads of the process; the values do not depend on it.
void prepare_images(const at::Tensor& images, std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices,
                    const Normalization& normalization, at::Tensor& output, bool parallel);

}  // namespace sage
