// The one augmentation kernel of the CUDA part. data/ finds it by name at run time and links no CUDA.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define SAGE_ON_DEVICE __host__ __device__
#else
#define SAGE_ON_DEVICE
#endif

namespace sage {

/// What happens to one example: see data/augment.h, prepare_images.
struct AugmentChoice {
  std::int32_t shift_y = 0, shift_x = 0;  ///< pixels, in [-crop, crop]
  std::int32_t flip = 0;                  ///< 1: mirrored left and right
  /// Rectangle of the result that is erased (the mean colour: 0 after normalisation); none where the height is 0.
  std::int32_t erase_y = 0, erase_x = 0, erase_height = 0, erase_width = 0;
  /// Whether pixel (y, x) of the result is erased.
  SAGE_ON_DEVICE bool erases(std::int64_t y, std::int64_t x) const {
    return y >= erase_y && y < erase_y + erase_height && x >= erase_x && x < erase_x + erase_width;
  }
};

/// All pointers are to memory of the current device.
struct AugmentLaunch {
  const std::uint8_t* images;    ///< [N, channels, height, width]
  const std::int64_t* rows;      ///< [count] rows of `images`
  const AugmentChoice* choices;  ///< [count], or null: no augmentation
  const float* mean;             ///< [channels], of values scaled to [0, 1]
  const float* deviation;        ///< [channels]
  float* output;                 ///< [count, channels, height, width]
  std::int64_t count, channels, height, width;
  bool channels_last;  ///< memory order of the output: NHWC, else NCHW
};

/// Makes the batch on `stream` (a cudaStream_t) without waiting for it. Returns null, or CUDA's words for what went
/// wrong with the launch. Gives the same bits as prepare_images on the CPU.
using AugmentImages = const char* (*)(const AugmentLaunch* launch, void* stream);
inline constexpr const char* augment_images_symbol = "sage_cuda_augment_images";

}  // namespace sage

extern "C" const char* sage_cuda_augment_images(const sage::AugmentLaunch* launch, void* stream);
