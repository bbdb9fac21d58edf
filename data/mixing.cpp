#include "data/mixing.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

/// Gamma(shape, 1) by Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
double gamma_variate(double shape, RandomStream& stream) {
  if (shape < 1.0) {
    const double larger = gamma_variate(shape + 1.0, stream);
    return larger * std::pow(1.0 - stream.uniform(), 1.0 / shape);
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double normal = stream.normal(), root = 1.0 + c * normal;
    if (root <= 0.0) continue;
    const double cube = root * root * root;
    if (std::log(1.0 - stream.uniform()) < 0.5 * normal * normal + d - d * cube + d * std::log(cube)) return d * cube;
  }
}

double beta_variate(double alpha, RandomStream& stream) {
  const double a = gamma_variate(alpha, stream), b = gamma_variate(alpha, stream);
  // Both can be too small for a number where alpha is: the distribution then lies at its two ends.
  return a + b > 0.0 ? a / (a + b) : (stream.uniform() < 0.5 ? 0.0 : 1.0);
}

}  // namespace

Mix choose_mix(const MixOptions& options, std::uint64_t seed, std::int64_t epoch, std::int64_t step, ImageSize size) {
  RandomStream stream(seed, "mix", static_cast<std::uint64_t>(step), static_cast<std::uint32_t>(epoch));
  const bool cuts = options.cutmix && stream.uniform() < options.cutmix_probability;
  if (!cuts && !(options.mixup && stream.uniform() < options.mixup_probability)) return {};
  Mix mix;
  mix.kind = cuts ? Mix::Kind::cutmix : Mix::Kind::mixup;
  mix.own_part = beta_variate(cuts ? options.cutmix_alpha : options.mixup_alpha, stream);
  if (!cuts) return mix;
  const auto along = [&](std::int64_t length) {
    const auto half = static_cast<std::int64_t>(0.5 * std::sqrt(1.0 - mix.own_part) * static_cast<double>(length));
    const auto middle = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(length)));
    const std::int64_t begin = std::max<std::int64_t>(0, middle - half);
    return std::pair(begin, std::min(length, middle + half) - begin);
  };
  std::tie(mix.box.x, mix.box.width) = along(size.width);
  std::tie(mix.box.y, mix.box.height) = along(size.height);
  mix.own_part =
      1.0 - static_cast<double>(mix.box.height * mix.box.width) / static_cast<double>(size.height * size.width);
  return mix;
}

at::Tensor mix_with_next(const at::Tensor& images, const Mix& mix) {
  const std::int64_t count = images.size(0) - 1;
  require(count >= 0 && images.scalar_type() == at::kFloat, "mix_with_next: one image more, in float32");
  at::Tensor own = images.narrow(0, 0, count);
  if (count == 0 || mix.kind == Mix::Kind::none) return own;
  const at::Tensor other = images.narrow(0, 1, count);
  const auto part = static_cast<float>(mix.own_part);
  if (!images.is_cpu()) {
    if (mix.kind == Mix::Kind::mixup) return own.mul(part).add(other, 1.0f - part);
    const auto cut = [&](const at::Tensor& tensor) {
      return tensor.narrow(2, mix.box.y, mix.box.height).narrow(3, mix.box.x, mix.box.width);
    };
    at::Tensor mixed = own.clone();
    cut(mixed).copy_(cut(other));
    return mixed;
  }
  // In place, from the first image on: the one behind is still as it was. No operator of LibTorch: those would use the
  // threads of the process from a thread that prepares batches.
  float* values = own.mutable_data_ptr<float>();
  const auto strides = images.strides();
  if (mix.kind == Mix::Kind::mixup) {
    const std::int64_t total = count * strides[0];  // both layouts are dense
    const float* others = values + strides[0];
    for (std::int64_t i = 0; i < total; ++i) values[i] = part * values[i] + (1.0f - part) * others[i];
    return own;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t c = 0; c < images.size(1); ++c) {
      for (std::int64_t y = mix.box.y; y < mix.box.y + mix.box.height; ++y) {
        float* row = values + i * strides[0] + c * strides[1] + y * strides[2];
        for (std::int64_t x = mix.box.x; x < mix.box.x + mix.box.width; ++x) {
          row[x * strides[3]] = row[strides[0] + x * strides[3]];
        }
      }
    }
  }
  return own;
}

}  // namespace sage
