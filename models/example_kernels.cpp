#include "models/example_kernels.h"

#include <algorithm>
#include <cstring>

// Each loop is compiled for several instruction sets, and the best one of the machine is taken at run time.
#if defined(__x86_64__)
#define SAGE_X86 1
#define SAGE_TARGET(name) __attribute__((target(name)))
#endif
// Sums stay in registers only where the loops over them are gone.
#define SAGE_UNROLL _Pragma("GCC unroll 8")
#define SAGE_INLINE inline __attribute__((always_inline))

namespace sage {
namespace {

/// A vector of `lanes` floats that may lie anywhere.
template <int lanes>
struct VectorOf {
  typedef float Type __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
};

/// rows windows of one example, as they lie in the padded input: entry j of the window at output pixel (y, x) is
/// input[y * row_step + x * pixel_step + j].
struct Windows {
  const float* input;
  std::int64_t row_step, pixel_step;
  const float* gradient;  // [output_height, output_width, gradient_step]
  std::int64_t gradient_step, output_height, output_width;
};

/// result[r][j] = sum over output pixels of gradient[r] * window[j] for r < outputs and j < vectors * lanes: a product
/// of matrices whose result stays in registers.
template <int lanes, int vectors, int outputs>
SAGE_INLINE void sum_over_pixels(const Windows& windows, float* result, std::int64_t result_step) {
  using Vector = typename VectorOf<lanes>::Type;
  Vector sums[outputs][vectors];
  SAGE_UNROLL for (int r = 0; r < outputs; ++r) { SAGE_UNROLL for (int j = 0; j < vectors; ++j) sums[r][j] = Vector{}; }
  for (std::int64_t y = 0; y < windows.output_height; ++y) {
    const float* input = windows.input + y * windows.row_step;
    const float* gradient = windows.gradient + y * windows.output_width * windows.gradient_step;
    for (std::int64_t x = 0; x < windows.output_width; ++x) {
      Vector window[vectors];
      SAGE_UNROLL for (int j = 0; j < vectors; ++j) window[j] = reinterpret_cast<const Vector*>(input + j * lanes)[0];
      SAGE_UNROLL for (int r = 0; r < outputs; ++r) {
        SAGE_UNROLL for (int j = 0; j < vectors; ++j) sums[r][j] += window[j] * gradient[r];
      }
      input += windows.pixel_step;
      gradient += windows.gradient_step;
    }
  }
  SAGE_UNROLL for (int r = 0; r < outputs; ++r) {
    SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
      reinterpret_cast<Vector*>(result + r * result_step + j * lanes)[0] = sums[r][j];
    }
  }
}

template <int lanes>
std::int64_t SAGE_INLINE vectors_for(std::int64_t count) {
  return (count + lanes - 1) / lanes;
}

/// All of a row of windows, three vectors at a time, for `outputs` output channels.
template <int lanes, int outputs>
SAGE_INLINE void sum_row(Windows windows, std::int64_t vectors, float* result, std::int64_t result_step) {
  for (; vectors >= 3; vectors -= 3, windows.input += 3 * lanes, result += 3 * lanes) {
    sum_over_pixels<lanes, 3, outputs>(windows, result, result_step);
  }
  if (vectors == 2) sum_over_pixels<lanes, 2, outputs>(windows, result, result_step);
  if (vectors == 1) sum_over_pixels<lanes, 1, outputs>(windows, result, result_step);
}

/// The output positions from which place `offset` of the window sees a pixel of the image: [first, last).
struct Seen {
  Seen(std::int64_t offset, std::int64_t stride, std::int64_t size, std::int64_t outputs)
      : first(offset >= 0 ? 0 : (-offset + stride - 1) / stride),
        last(offset >= size ? 0 : std::min(outputs, (size - 1 - offset) / stride + 1)) {}
  std::int64_t first, last;
};

/// One input and one output channel a group (a depthwise convolution): vectors run over channels `begin` to `begin` +
/// vectors * lanes - 1, of which `to` receives [channels, kernel, kernel].
template <int lanes, int vectors>
SAGE_INLINE void depthwise_channels(const ConvolutionShape& shape, std::int64_t begin, const float* input,
                                    const float* output_gradient, float* to) {
  using Vector = typename VectorOf<lanes>::Type;
  const std::int64_t channels = shape.groups, window = shape.kernel * shape.kernel;
  for (std::int64_t place = 0; place < window; ++place) {
    const std::int64_t row = place / shape.kernel - shape.padding, column = place % shape.kernel - shape.padding;
    const Seen rows(row, shape.stride, shape.height, shape.output_height);
    const Seen columns(column, shape.stride, shape.width, shape.output_width);
    Vector sums[vectors];
    SAGE_UNROLL for (int j = 0; j < vectors; ++j) sums[j] = Vector{};
    for (std::int64_t y = rows.first; y < rows.last; ++y) {
      const std::int64_t from = (y * shape.stride + row) * shape.width + columns.first * shape.stride + column;
      const float* values = input + from * channels + begin;
      const float* gradient = output_gradient + (y * shape.output_width + columns.first) * channels + begin;
      for (std::int64_t x = columns.first; x < columns.last; ++x) {
        SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
          sums[j] += reinterpret_cast<const Vector*>(values + j * lanes)[0] *
                     reinterpret_cast<const Vector*>(gradient + j * lanes)[0];
        }
        values += shape.stride * channels;
        gradient += channels;
      }
    }
    SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
      for (int lane = 0; lane < lanes; ++lane) to[(j * lanes + lane) * window + place] = sums[j][lane];
    }
  }
}

template <int lanes>
SAGE_INLINE void depthwise_gradient(const ConvolutionShape& shape, std::int64_t begin, std::int64_t end,
                                    const float* input, const float* output_gradient, float* to) {
  const std::int64_t window = shape.kernel * shape.kernel;
  for (; begin + 4 * lanes <= end; begin += 4 * lanes, to += 4 * lanes * window) {
    depthwise_channels<lanes, 4>(shape, begin, input, output_gradient, to);
  }
  for (; begin + lanes <= end; begin += lanes, to += lanes * window) {
    depthwise_channels<lanes, 1>(shape, begin, input, output_gradient, to);
  }
  for (; begin < end; ++begin, to += window) {
    depthwise_channels<1, 1>(shape, begin, input, output_gradient, to);
  }
}

constexpr int most_lanes = 16;
constexpr int most_outputs = 8;

template <int lanes, int most>
SAGE_INLINE void weight_gradient(const ConvolutionShape& shape, std::int64_t begin, std::int64_t end,
                                 const float* input, const float* output_gradient, float* weight_gradient,
                                 float* scratch) {
  if (shape.inputs == 1 && shape.outputs == 1) {
    return depthwise_gradient<lanes>(shape, begin, end, input, output_gradient, weight_gradient);
  }
  const std::int64_t channels = shape.inputs, kernel = shape.kernel, window = kernel * kernel;
  const std::int64_t padded_width = shape.width + 2 * shape.padding;
  const std::int64_t padded_size = (shape.height + 2 * shape.padding) * padded_width * channels;
  const std::int64_t vectors = vectors_for<lanes>(kernel * channels), row = vectors * lanes;
  // The padded input with the channels of one group, so that a row of a window is one run; then results as they come,
  // [outputs at a time, kernel rows, row].
  float* results = scratch + padded_size + most_lanes;
  std::fill(scratch, scratch + padded_size + most_lanes, 0.0f);
  for (std::int64_t group = begin / shape.outputs; group * shape.outputs < end; ++group) {
    for (std::int64_t y = 0; y < shape.height; ++y) {
      float* to = scratch + ((y + shape.padding) * padded_width + shape.padding) * channels;
      const float* from = input + y * shape.width * shape.groups * channels + group * channels;
      if (shape.groups == 1) {
        std::copy(from, from + shape.width * channels, to);
      } else {
        for (std::int64_t x = 0; x < shape.width; ++x, to += channels, from += shape.groups * channels) {
          std::copy(from, from + channels, to);
        }
      }
    }
    const std::int64_t group_end = std::min(end, (group + 1) * shape.outputs);
    for (std::int64_t first = std::max(begin, group * shape.outputs); first < group_end;) {
      const std::int64_t left = group_end - first;
      const std::int64_t count = left >= most ? most : left >= 4 ? 4 : 1;
      for (std::int64_t y = 0; y < kernel; ++y) {
        const Windows windows{scratch + y * padded_width * channels,
                              shape.stride * padded_width * channels,
                              shape.stride * channels,
                              output_gradient + first,
                              shape.groups * shape.outputs,
                              shape.output_height,
                              shape.output_width};
        float* result = results + y * row;
        if (count == most) {
          sum_row<lanes, most>(windows, vectors, result, kernel * row);
        } else if (count == 4) {
          sum_row<lanes, 4>(windows, vectors, result, kernel * row);
        } else {
          sum_row<lanes, 1>(windows, vectors, result, kernel * row);
        }
      }
      // [kernel rows, kernel columns, channels] to [channels, kernel rows, kernel columns].
      float* to = weight_gradient + (first - begin) * channels * window;
      for (std::int64_t r = 0; r < count; ++r) {
        const float* from = results + r * kernel * row;
        if (kernel == 3) {
          for (std::int64_t c = 0; c < channels; ++c, to += 9, ++from) {
            for (std::int64_t y = 0; y < 3; ++y) {
              for (std::int64_t x = 0; x < 3; ++x) to[3 * y + x] = from[y * row + x * channels];
            }
          }
          continue;
        }
        for (std::int64_t c = 0; c < channels; ++c, ++from) {
          for (std::int64_t y = 0; y < kernel; ++y) {
            for (std::int64_t x = 0; x < kernel; ++x) *to++ = from[y * row + x * channels];
          }
        }
      }
      first += count;
    }
  }
}

template <int lanes, int vectors>
SAGE_INLINE void sum_channels(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                              const float* output_gradient, float* sums, float* products) {
  using Vector = typename VectorOf<lanes>::Type;
  Vector sum[vectors], product[vectors], middle[vectors];
  SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
    sum[j] = product[j] = Vector{};
    middle[j] = products != nullptr ? reinterpret_cast<const Vector*>(center + j * lanes)[0] : Vector{};
  }
  for (std::int64_t p = 0; p < pixels; ++p, output_gradient += channels) {
    SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
      const Vector gradient = reinterpret_cast<const Vector*>(output_gradient + j * lanes)[0];
      sum[j] += gradient;
      if (products == nullptr) continue;
      product[j] += (reinterpret_cast<const Vector*>(input + p * channels + j * lanes)[0] - middle[j]) * gradient;
    }
  }
  SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
    reinterpret_cast<Vector*>(sums + j * lanes)[0] = sum[j];
    if (products != nullptr) reinterpret_cast<Vector*>(products + j * lanes)[0] = product[j];
  }
}

template <int lanes>
SAGE_INLINE void all_channel_sums(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                                  const float* output_gradient, float* sums, float* products) {
  const auto part = [](auto* values, std::int64_t first) { return values == nullptr ? nullptr : values + first; };
  std::int64_t first = 0;
  for (; first + 4 * lanes <= channels; first += 4 * lanes) {
    sum_channels<lanes, 4>(pixels, channels, part(input, first), part(center, first), output_gradient + first,
                           sums + first, part(products, first));
  }
  for (; first + lanes <= channels; first += lanes) {
    sum_channels<lanes, 1>(pixels, channels, part(input, first), part(center, first), output_gradient + first,
                           sums + first, part(products, first));
  }
  for (; first < channels; ++first) {
    sum_channels<1, 1>(pixels, channels, part(input, first), part(center, first), output_gradient + first, sums + first,
                       part(products, first));
  }
}

template <int lanes, int vectors>
SAGE_INLINE void scale_some_channels(std::int64_t pixels, std::int64_t channels, const float* values,
                                     const float* scale, float* result) {
  using Vector = typename VectorOf<lanes>::Type;
  Vector factor[vectors];
  SAGE_UNROLL for (int j = 0; j < vectors; ++j) factor[j] = reinterpret_cast<const Vector*>(scale + j * lanes)[0];
  for (std::int64_t p = 0; p < pixels; ++p, values += channels, result += channels) {
    SAGE_UNROLL for (int j = 0; j < vectors; ++j) {
      reinterpret_cast<Vector*>(result + j * lanes)[0] =
          reinterpret_cast<const Vector*>(values + j * lanes)[0] * factor[j];
    }
  }
}

template <int lanes>
SAGE_INLINE void scale_all_channels(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale,
                                    float* result) {
  std::int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) {
    scale_some_channels<lanes, 4>(pixels, channels, values + c, scale + c, result + c);
  }
  for (; c + lanes <= channels; c += lanes) {
    scale_some_channels<lanes, 1>(pixels, channels, values + c, scale + c, result + c);
  }
  for (; c < channels; ++c) scale_some_channels<1, 1>(pixels, channels, values + c, scale + c, result + c);
}

#ifdef SAGE_X86
SAGE_TARGET("avx512f")
void scale_channels_avx512(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale,
                           float* result) {
  scale_all_channels<16>(pixels, channels, values, scale, result);
}
SAGE_TARGET("avx2,fma")
void scale_channels_avx2(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale,
                         float* result) {
  scale_all_channels<8>(pixels, channels, values, scale, result);
}
SAGE_TARGET("avx512f")
void weight_gradient_avx512(const ConvolutionShape& shape, std::int64_t first, std::int64_t last, const float* input,
                            const float* output_gradient, float* gradient, float* scratch) {
  weight_gradient<16, 8>(shape, first, last, input, output_gradient, gradient, scratch);
}
SAGE_TARGET("avx2,fma")
void weight_gradient_avx2(const ConvolutionShape& shape, std::int64_t first, std::int64_t last, const float* input,
                          const float* output_gradient, float* gradient, float* scratch) {
  weight_gradient<8, 4>(shape, first, last, input, output_gradient, gradient, scratch);
}
SAGE_TARGET("avx512f")
void channel_sums_avx512(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                         const float* output_gradient, float* sums, float* products) {
  all_channel_sums<16>(pixels, channels, input, center, output_gradient, sums, products);
}
SAGE_TARGET("avx2,fma")
void channel_sums_avx2(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                       const float* output_gradient, float* sums, float* products) {
  all_channel_sums<8>(pixels, channels, input, center, output_gradient, sums, products);
}
#endif

void weight_gradient_plain(const ConvolutionShape& shape, std::int64_t first, std::int64_t last, const float* input,
                           const float* output_gradient, float* gradient, float* scratch) {
  weight_gradient<4, 4>(shape, first, last, input, output_gradient, gradient, scratch);
}
void scale_channels_plain(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale,
                          float* result) {
  scale_all_channels<4>(pixels, channels, values, scale, result);
}
void channel_sums_plain(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                        const float* output_gradient, float* sums, float* products) {
  all_channel_sums<4>(pixels, channels, input, center, output_gradient, sums, products);
}

/// Of the versions of one function, the best that this machine can run.
template <class Function>
Function best_of([[maybe_unused]] Function avx512, [[maybe_unused]] Function avx2, Function plain) {
#ifdef SAGE_X86
  if (__builtin_cpu_supports("avx512f")) return avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  return plain;
}

}  // namespace

std::int64_t scratch_size(const ConvolutionShape& shape) {
  const std::int64_t row = vectors_for<most_lanes>(shape.kernel * shape.inputs) * most_lanes;
  return (shape.height + 2 * shape.padding) * (shape.width + 2 * shape.padding) * shape.inputs + most_lanes +
         most_outputs * shape.kernel * row;
}

void convolution_weight_gradient(const ConvolutionShape& shape, std::int64_t first, std::int64_t last,
                                 const float* input, const float* output_gradient, float* gradient, float* scratch) {
#ifdef SAGE_X86
  static const auto best = best_of(weight_gradient_avx512, weight_gradient_avx2, weight_gradient_plain);
#else
  static const auto best = weight_gradient_plain;
#endif
  best(shape, first, last, input, output_gradient, gradient, scratch);
}

void channel_sums(std::int64_t pixels, std::int64_t channels, const float* input, const float* center,
                  const float* output_gradient, float* sums, float* products) {
#ifdef SAGE_X86
  static const auto best = best_of(channel_sums_avx512, channel_sums_avx2, channel_sums_plain);
#else
  static const auto best = channel_sums_plain;
#endif
  best(pixels, channels, input, center, output_gradient, sums, products);
}

void scale_channels(std::int64_t pixels, std::int64_t channels, const float* values, const float* scale,
                    float* result) {
#ifdef SAGE_X86
  static const auto best = best_of(scale_channels_avx512, scale_channels_avx2, scale_channels_plain);
#else
  static const auto best = scale_channels_plain;
#endif
  best(pixels, channels, values, scale, result);
}

}  // namespace sage
