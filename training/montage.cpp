#include "training/montage.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/error.h"

namespace sage {

std::vector<std::int64_t> spread(std::span<const std::int64_t> ids, std::size_t most) {
  const std::size_t count = std::min(most, ids.size());
  std::vector<std::int64_t> chosen;
  for (std::size_t i = 0; i < count; ++i) chosen.push_back(ids[i * ids.size() / count]);
  return chosen;
}

at::Tensor montage(const ImageStore& images, std::span<const std::int64_t> ids, std::span<const float> mean,
                   std::span<const float> deviation, std::int64_t columns) {
  require(!ids.empty() && columns > 0, "montage: no image");
  constexpr std::int64_t line = 1, smallest = 32;
  const auto channel = [](std::span<const float> values) {
    return at::from_blob(const_cast<float*>(values.data()), {1, static_cast<std::int64_t>(values.size()), 1, 1},
                         at::kFloat);
  };
  const at::Tensor normalised = images.images_of(ids).cpu();
  require((normalised.size(1) == 1 || normalised.size(1) == 3) &&
              normalised.size(1) == static_cast<std::int64_t>(mean.size()) && mean.size() == deviation.size(),
          "montage: neither grey nor RGB");
  at::Tensor bytes =
      (normalised * channel(deviation) + channel(mean)).mul_(255.0).round_().clamp_(0.0, 255.0).to(at::kByte);
  const std::int64_t factor = (smallest + bytes.size(2) - 1) / bytes.size(2);
  if (factor > 1) bytes = bytes.repeat_interleave(factor, 2).repeat_interleave(factor, 3);

  const std::int64_t height = bytes.size(2), width = bytes.size(3);
  const std::int64_t rows = (bytes.size(0) + columns - 1) / columns;
  at::Tensor picture = at::zeros({bytes.size(1), rows * (height + line) - line, columns * (width + line) - line},
                                 at::TensorOptions(at::kByte));
  for (std::int64_t i = 0; i < bytes.size(0); ++i) {
    picture.narrow(1, i / columns * (height + line), height)
        .narrow(2, i % columns * (width + line), width)
        .copy_(bytes[i]);
  }
  return picture;
}

}  // namespace sage
