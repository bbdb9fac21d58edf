#include "data/augment.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

std::int64_t reflect(std::int64_t i, std::int64_t size) {
  if (i < 0) return -i;
  return i < size ? i : 2 * size - 2 - i;
}

struct Shape {
  std::int64_t channels, height, width;
};

/// One plane. Kept apart from the loops over examples so that the compiler sees constant strides.
template <std::int64_t FixedStride>
void convert_plane(const std::uint8_t* source, const float* table, const std::int64_t* rows,
                   const std::int64_t* columns, const Shape& shape, float* target, std::int64_t row_stride,
                   std::int64_t any_stride) {
  const std::int64_t stride = FixedStride > 0 ? FixedStride : any_stride;
  for (std::int64_t y = 0; y < shape.height; ++y) {
    const std::uint8_t* from = source + rows[y] * shape.width;
    float* to = target + y * row_stride;
    for (std::int64_t x = 0; x < shape.width; ++x) to[x * stride] = table[from[columns[x]]];
  }
}

}  // namespace

void check_augment_options(const AugmentOptions& options, std::int64_t height, std::int64_t width) {
  if (options.crop < 0 || options.crop >= std::min(height, width)) {
    throw ConfigError(fmt::format("data.augment.crop: {} is not in 0..{} for images of {} x {} pixels", options.crop,
                                  std::min(height, width) - 1, height, width));
  }
}

AugmentChoice choose_augmentation(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                                  std::int64_t id) {
  // The id takes the 64-bit place of the stream's counter: 2^32 epochs are enough, 2^32 examples might not be.
  RandomStream stream(seed, "augment", static_cast<std::uint64_t>(id), static_cast<std::uint32_t>(epoch));
  AugmentChoice choice{};
  if (options.crop > 0) {
    const auto offsets = static_cast<std::uint64_t>(2 * options.crop + 1);
    choice.shift_y = static_cast<std::int32_t>(static_cast<std::int64_t>(stream.below(offsets)) - options.crop);
    choice.shift_x = static_cast<std::int32_t>(static_cast<std::int64_t>(stream.below(offsets)) - options.crop);
  }
  if (options.flip) choice.flip = static_cast<std::int32_t>(stream() >> 31);
  return choice;
}

std::vector<AugmentChoice> choose_augmentations(const AugmentOptions& options, std::uint64_t seed, std::int64_t epoch,
                                                std::span<const std::int64_t> ids) {
  std::vector<AugmentChoice> choices;
  if (!options.any()) return choices;
  choices.reserve(ids.size());
  for (const std::int64_t id : ids) choices.push_back(choose_augmentation(options, seed, epoch, id));
  return choices;
}

Normalization::Normalization(std::span<const float> mean, std::span<const float> deviation) {
  require(mean.size() == deviation.size() && !mean.empty(), "Normalization: one mean and one deviation per channel");
  table_.reserve(mean.size() * 256);
  for (std::size_t c = 0; c < mean.size(); ++c) {
    for (int value = 0; value < 256; ++value) {
      table_.push_back((static_cast<float>(value) / 255.0f - mean[c]) / deviation[c]);
    }
  }
}

void prepare_images(const at::Tensor& images, std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices,
                    const Normalization& normalization, at::Tensor& output, bool parallel) {
  const std::int64_t total = images.size(0), count = static_cast<std::int64_t>(ids.size());
  const Shape shape{images.size(1), images.size(2), images.size(3)};
  require(images.is_contiguous() && images.scalar_type() == at::kByte,
          "prepare_images: images must be bytes, contiguous");
  require(normalization.channels() == shape.channels, "prepare_images: normalisation of another number of channels");
  require(choices.empty() || choices.size() == ids.size(), "prepare_images: one choice per example");
  require(output.dim() == 4 && output.size(0) == count && output.size(1) == shape.channels &&
              output.size(2) == shape.height && output.size(3) == shape.width && output.scalar_type() == at::kFloat,
          "prepare_images: output of another shape or type");
  for (const std::int64_t id : ids) require(id >= 0 && id < total, "prepare_images: example id out of range");
  if (count == 0) return;

  const auto* bytes = images.const_data_ptr<std::uint8_t>();
  auto* floats = output.mutable_data_ptr<float>();
  const std::int64_t plane = shape.height * shape.width;
  const std::int64_t image_stride = output.stride(0), channel_stride = output.stride(1);
  const std::int64_t row_stride = output.stride(2), column_stride = output.stride(3);

  auto convert = [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(shape.height)),
        columns(static_cast<std::size_t>(shape.width));
    for (std::int64_t i = begin; i < end; ++i) {
      const AugmentChoice choice = choices.empty() ? AugmentChoice{} : choices[static_cast<std::size_t>(i)];
      for (std::int64_t y = 0; y < shape.height; ++y) {
        rows[static_cast<std::size_t>(y)] = reflect(y + choice.shift_y, shape.height);
      }
      for (std::int64_t x = 0; x < shape.width; ++x) {
        const std::int64_t unflipped = choice.flip ? shape.width - 1 - x : x;
        columns[static_cast<std::size_t>(x)] = reflect(unflipped + choice.shift_x, shape.width);
      }
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const std::uint8_t* source = bytes + (ids[static_cast<std::size_t>(i)] * shape.channels + c) * plane;
        float* target = floats + i * image_stride + c * channel_stride;
        const auto plane_converter = column_stride == 1 ? convert_plane<1> : convert_plane<0>;
        plane_converter(source, normalization.table(c), rows.data(), columns.data(), shape, target, row_stride,
                        column_stride);
      }
    }
  };
  if (parallel) {
    at::parallel_for(0, count, std::max<std::int64_t>(1, 32768 / (plane * shape.channels)), convert);
  } else {
    convert(0, count);
  }
}

}  // namespace sage
