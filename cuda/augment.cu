#include "data/augment_kernel.h"

#include <cuda_runtime.h>

namespace {

__device__ __forceinline__ std::int64_t reflect(std::int64_t i, std::int64_t size) {
  if (i < 0) return -i;
  return i < size ? i : 2 * size - 2 - i;
}

/// One thread per output pixel, all its channels. Neighbouring threads take neighbouring columns, so that reads and
/// writes of a warp fall together in NCHW and in NHWC.
__global__ void augment_images(sage::AugmentLaunch launch) {
  const std::int64_t plane = launch.height * launch.width;
  const std::int64_t pixels = launch.count * plane;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t pixel = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; pixel < pixels;
       pixel += step) {
    const std::int64_t example = pixel / plane, within = pixel % plane;
    const std::int64_t y = within / launch.width, x = within % launch.width;
    const sage::AugmentChoice choice = launch.choices != nullptr ? launch.choices[example] : sage::AugmentChoice{};
    const std::int64_t source_y = reflect(y + choice.shift_y, launch.height);
    const std::int64_t source_x = reflect((choice.flip ? launch.width - 1 - x : x) + choice.shift_x, launch.width);
    const std::uint8_t* source =
        launch.images + launch.rows[example] * launch.channels * plane + source_y * launch.width + source_x;
    float* target =
        launch.output + example * launch.channels * plane + (launch.channels_last ? within * launch.channels : within);
    const std::int64_t channel_stride = launch.channels_last ? 1 : plane;
    if (choice.erases(y, x)) {
      for (std::int64_t c = 0; c < launch.channels; ++c) target[c * channel_stride] = 0.0f;
      continue;
    }
    for (std::int64_t c = 0; c < launch.channels; ++c) {
      // Correctly rounded divisions: the same bits as on the CPU, whatever the compiler's flags.
      const float scaled = __fdiv_rn(static_cast<float>(source[c * plane]), 255.0f);
      target[c * channel_stride] = __fdiv_rn(__fsub_rn(scaled, launch.mean[c]), launch.deviation[c]);
    }
  }
}

}  // namespace

extern "C" const char* sage_cuda_augment_images(const sage::AugmentLaunch* launch, void* stream) {
  constexpr int threads = 256;
  constexpr std::int64_t most_blocks = 65535;  // the kernel strides over what is left
  const std::int64_t pixels = launch->count * launch->height * launch->width;
  if (pixels == 0) return nullptr;
  const std::int64_t blocks = (pixels + threads - 1) / threads;
  augment_images<<<static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks), threads, 0,
                   static_cast<cudaStream_t>(stream)>>>(*launch);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
