// The inner loops of per-example gradients on a CPU: float32, channels last, one example a call. What a library offers
// for one example's weight gradient (unfolding and a small matrix product, or a convolution with a group per example)
// moves more bytes than it computes.
#pragma once
#include <cstdint>

namespace sage {

/// A convolution without dilation: square windows, `groups` groups of `inputs` channels to `outputs` channels each.
struct ConvolutionShape {
  std::int64_t inputs = 0, outputs = 0, groups = 1;
  std::int64_t height = 0, width = 0;                ///< of the input
  std::int64_t output_height = 0, output_width = 0;  ///< of the output
  std::int64_t kernel = 1, stride = 1, padding = 0;
};

/// Floats of scratch memory that convolution_weight_gradient() needs.
std::int64_t scratch_size(const ConvolutionShape& shape);

/// Of output channels `first` to `last` - 1, of groups * outputs: input [height, width, groups * inputs] and
/// output_gradient [output_height, output_width, groups * outputs] -> weight_gradient [last - first, inputs, kernel,
/// kernel], all dense. The bits depend neither on where they lie nor on which channels are computed together.
void convolution_weight_gradient(const ConvolutionShape& shape, std::int64_t first, std::int64_t last,
                                 const float* input, const float* output_gradient, float* weight_gradient,
                                 float* scratch);

/// For input and output_gradient [pixels, channels]: sums[c] = sum over pixels of output_gradient, and products[c] =
/// sum of (input - center[c]) * output_gradient. `products` may be null (then so may input and center).
void channel_sums(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                  const float* output_gradient, float* sums, float* products);

/// result[p][c] = values[p][c] * scale[c], for [pixels, channels].
void scale_channels(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale, float* result);

}  // namespace sage
