#include <vector>

#include "models/architectures.h"
#include "models/residual.h"

namespace sage {
namespace {

constexpr std::int64_t expansion = 2;  // channels at a block's output / channels of its grouped convolution

std::unique_ptr<Classifier> make_resnext29(const ModelArguments& arguments, std::int64_t groups,
                                           std::int64_t group_width) {
  const std::int64_t first = expansion * groups * group_width;
  return std::make_unique<ResidualNetwork>(arguments, 64, ConvolutionOptions{.kernel = 1}, /*max_pool=*/false,
                                           std::vector<Stage>{{first, 3}, {2 * first, 3}, {4 * first, 3}},
                                           [&](std::int64_t inputs, std::int64_t outputs, std::int64_t stride) {
                                             return make_bottleneck(inputs, outputs / expansion, outputs, stride,
                                                                    groups, arguments.batch_norm);
                                           });
}

}  // namespace

std::unique_ptr<Classifier> make_resnext29_32x4d(const ModelArguments& arguments) {
  return make_resnext29(arguments, 32, 4);
}
std::unique_ptr<Classifier> make_resnext29_2x64d(const ModelArguments& arguments) {
  return make_resnext29(arguments, 2, 64);
}
std::unique_ptr<Classifier> make_resnext29_4x64d(const ModelArguments& arguments) {
  return make_resnext29(arguments, 4, 64);
}
std::unique_ptr<Classifier> make_resnext29_8x64d(const ModelArguments& arguments) {
  return make_resnext29(arguments, 8, 64);
}

}  // namespace sage
