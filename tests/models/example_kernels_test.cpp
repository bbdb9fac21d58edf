#include "models/example_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/random.h"

namespace sage {
namespace {

std::vector<float> normal_values(std::int64_t count, const char* name) {
  RandomStream stream(7, name);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = static_cast<float>(stream.normal());
  return values;
}

TEST(ExampleKernels, WeightGradientIsTheSumOverPixels) {
  struct Case {
    std::int64_t inputs, outputs, groups, height, width, kernel, stride, padding;
  };
  // Channels that fill vectors and that do not, one output channel and many, one group and several.
  for (const Case& c : std::vector<Case>{{16, 16, 1, 12, 9, 3, 1, 1},
                                         {3, 16, 1, 8, 8, 3, 1, 1},
                                         {5, 7, 1, 9, 7, 3, 2, 0},
                                         {64, 13, 1, 5, 5, 1, 1, 0},
                                         {4, 4, 8, 6, 6, 3, 1, 1},
                                         {2, 9, 3, 11, 10, 5, 3, 2},
                                         {1, 1, 1, 1, 1, 1, 1, 0},
                                         {1, 1, 37, 9, 7, 3, 1, 1},  // depthwise
                                         {1, 1, 133, 8, 9, 5, 2, 2},
                                         {1, 1, 16, 1, 2, 5, 2, 2},
                                         {1, 1, 70, 6, 6, 3, 3, 0},
                                         {37, 8, 1, 4, 4, 3, 2, 1}}) {
    SCOPED_TRACE(testing::Message() << c.inputs << " to " << c.outputs << ", " << c.groups << " groups, window "
                                    << c.kernel << ", stride " << c.stride);
    const ConvolutionShape shape{.inputs = c.inputs,
                                 .outputs = c.outputs,
                                 .groups = c.groups,
                                 .height = c.height,
                                 .width = c.width,
                                 .output_height = (c.height + 2 * c.padding - c.kernel) / c.stride + 1,
                                 .output_width = (c.width + 2 * c.padding - c.kernel) / c.stride + 1,
                                 .kernel = c.kernel,
                                 .stride = c.stride,
                                 .padding = c.padding};
    const std::int64_t inputs = c.groups * c.inputs, outputs = c.groups * c.outputs;
    const auto input = normal_values(c.height * c.width * inputs, "input");
    const auto gradient = normal_values(shape.output_height * shape.output_width * outputs, "gradient");
    const std::int64_t size = outputs * c.inputs * c.kernel * c.kernel;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    // Scratch memory may hold anything, and results lie between others, aligned or not.
    std::vector<float> scratch(static_cast<std::size_t>(scratch_size(shape)), nan);
    std::vector<float> result(static_cast<std::size_t>(size) + 2, 77.0f), again(result);
    convolution_weight_gradient(shape, 0, outputs, input.data(), gradient.data(), result.data() + 1, scratch.data());
    for (std::int64_t first = 0; first < outputs; first += 3) {  // some channels at a time
      convolution_weight_gradient(shape, first, std::min(first + 3, outputs), input.data(), gradient.data(),
                                  again.data() + 2 + first * size / outputs, scratch.data());
    }
    EXPECT_EQ(result.front(), 77.0f);
    EXPECT_EQ(result.back(), 77.0f);
    EXPECT_EQ(std::memcmp(result.data() + 1, again.data() + 2, static_cast<std::size_t>(size) * sizeof(float)), 0);

    std::size_t next = 1;
    for (std::int64_t o = 0; o < outputs; ++o) {
      for (std::int64_t i = 0; i < c.inputs; ++i) {
        for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
          for (std::int64_t kx = 0; kx < c.kernel; ++kx, ++next) {
            double sum = 0.0, scale = 1.0;
            for (std::int64_t y = 0; y < shape.output_height; ++y) {
              for (std::int64_t x = 0; x < shape.output_width; ++x) {
                const std::int64_t in_y = y * c.stride + ky - c.padding, in_x = x * c.stride + kx - c.padding;
                if (in_y < 0 || in_y >= c.height || in_x < 0 || in_x >= c.width) continue;
                const std::int64_t channel = o / c.outputs * c.inputs + i;
                const double product =
                    static_cast<double>(input[static_cast<std::size_t>((in_y * c.width + in_x) * inputs + channel)]) *
                    gradient[static_cast<std::size_t>((y * shape.output_width + x) * outputs + o)];
                sum += product;
                scale += std::abs(product);
              }
            }
            ASSERT_NEAR(result[next], sum, 1e-6 * scale) << o << " " << i << " " << ky << " " << kx;
          }
        }
      }
    }
  }
}

TEST(ExampleKernels, SumsAndScalesChannels) {
  for (const std::int64_t channels : {1, 3, 16, 31, 64, 133}) {
    const std::int64_t pixels = 29;
    const auto input = normal_values(pixels * channels, "input"),
               gradient = normal_values(pixels * channels, "gradient");
    const auto center = normal_values(channels, "center");
    std::vector<float> sums(static_cast<std::size_t>(channels)), products(sums), alone(sums);
    channel_sums(pixels, channels, input.data(), center.data(), gradient.data(), sums.data(), products.data());
    channel_sums(pixels, channels, nullptr, nullptr, gradient.data(), alone.data(), nullptr);
    EXPECT_EQ(alone, sums);
    std::vector<float> scaled(input.size());
    scale_channels(pixels, channels, input.data(), center.data(), scaled.data());
    for (std::size_t i = 0; i < input.size(); ++i) {
      ASSERT_EQ(scaled[i], input[i] * center[i % static_cast<std::size_t>(channels)]);
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      double sum = 0.0, product = 0.0;
      for (std::int64_t p = 0; p < pixels; ++p) {
        const auto at = static_cast<std::size_t>(p * channels + c);
        sum += gradient[at];
        product += (static_cast<double>(input[at]) - center[static_cast<std::size_t>(c)]) * gradient[at];
      }
      EXPECT_NEAR(sums[static_cast<std::size_t>(c)], sum, 1e-4);
      EXPECT_NEAR(products[static_cast<std::size_t>(c)], product, 1e-4);
    }
  }
}

}  // namespace
}  // namespace sage
