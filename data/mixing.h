// CutMix and MixUp: examples of a batch mixed with each other, and their labels.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "data/image_decoder.h"
#include "data/resize.h"

namespace sage {

struct MixOptions {
  bool cutmix = false, mixup = false;
  double cutmix_alpha = 1.0, mixup_alpha = 0.2;              ///< of the Beta(alpha, alpha) distribution
  double cutmix_probability = 0.5, mixup_probability = 1.0;  ///< of a batch being mixed
  bool any() const { return cutmix || mixup; }
};

/// What happens to one global batch. Every example is mixed with the one behind it, the last with the first: the order
/// of a batch is random already, and a rank needs just one more example than its part.
struct Mix {
  enum class Kind { none, cutmix, mixup } kind = Kind::none;
  double own_part = 1.0;  ///< of an example's own label; the rest is the other's
  PixelBox box;           ///< cutmix: what comes from the other image
};

/// A pure function of (seed, epoch, step within the epoch): the same on every rank, for any number of ranks. CutMix
/// (Yun et al., ICCV 2019) is drawn with its probability; if it is not, MixUp (Zhang et al., ICLR 2018) with its own.
/// CutMix's box has the area 1 - lambda, lambda from Beta(alpha, alpha), and a uniform middle; what lies outside of the
/// image is cut off, and own_part is what is really left, as in the paper.
Mix choose_mix(const MixOptions& options, std::uint64_t seed, std::int64_t epoch, std::int64_t step, ImageSize size);

/// `images` [n + 1, C, H, W] float32, on any device: each of the first n is mixed with the one behind it. Returns those
/// [n, C, H, W]; on the CPU they are changed in place. Each value depends on its two images only.
at::Tensor mix_with_next(const at::Tensor& images, const Mix& mix);

}  // namespace sage
