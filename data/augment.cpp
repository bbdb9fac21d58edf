#include "data/augment.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

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

/// Which row and column of the source each row and column of the result comes from.
struct Places {
  std::vector<std::int64_t> rows, columns;
  Places(std::int64_t height, std::int64_t width)
      : rows(static_cast<std::size_t>(height)), columns(static_cast<std::size_t>(width)) {}
  void set(const AugmentChoice& choice) {
    const auto height = static_cast<std::int64_t>(rows.size()), width = static_cast<std::int64_t>(columns.size());
    for (std::int64_t y = 0; y < height; ++y) rows[static_cast<std::size_t>(y)] = reflect(y + choice.shift_y, height);
    for (std::int64_t x = 0; x < width; ++x) {
      const std::int64_t unflipped = choice.flip ? width - 1 - x : x;
      columns[static_cast<std::size_t>(x)] = reflect(unflipped + choice.shift_x, width);
    }
  }
};

/// Uniform between `low` and `high` after the exponential: aspect ratios, and their reciprocals alike.
double aspect_ratio(RandomStream& stream, double low, double high) {
  return std::exp(std::log(low) + (std::log(high) - std::log(low)) * stream.uniform());
}

/// A rectangle of `area` pixels and that aspect ratio, width by height.
ImageSize rectangle(double area, double aspect) {
  return {std::llround(std::sqrt(area / aspect)), std::llround(std::sqrt(area * aspect))};
}

std::int64_t random_start(RandomStream& stream, std::int64_t length, std::int64_t part) {
  return static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(length - part + 1)));
}

constexpr int attempts = 10;

void choose_erasing(const Augmentation& augmentation, std::int64_t id, ImageSize size, AugmentChoice& choice) {
  RandomStream stream(augmentation.seed, "erasing", static_cast<std::uint64_t>(id),
                      static_cast<std::uint32_t>(augmentation.epoch));
  if (stream.uniform() >= augmentation.options.erasing) return;
  const auto pixels = static_cast<double>(size.height * size.width);
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const double area = pixels * (0.02 + (0.33 - 0.02) * stream.uniform());
    const ImageSize part = rectangle(area, aspect_ratio(stream, 0.3, 3.3));
    if (part.height < 1 || part.width < 1 || part.height >= size.height || part.width >= size.width) continue;
    choice.erase_y = static_cast<std::int32_t>(random_start(stream, size.height, part.height));
    choice.erase_x = static_cast<std::int32_t>(random_start(stream, size.width, part.width));
    choice.erase_height = static_cast<std::int32_t>(part.height);
    choice.erase_width = static_cast<std::int32_t>(part.width);
    return;
  }
}

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

AugmentOptions to_augment_options(const DataConfig::Augment& config) {
  AugmentOptions options;
  options.crop = config.crop;
  options.flip = config.flip;
  options.random_resized_crop = config.random_resized_crop;
  options.min_scale = config.min_scale;
  options.randaugment = config.randaugment;
  options.randaugment_magnitude = config.randaugment_magnitude;
  options.erasing = config.erasing;
  options.mix = {.cutmix = config.cutmix.enabled,
                 .mixup = config.mixup.enabled,
                 .cutmix_alpha = config.cutmix.alpha,
                 .mixup_alpha = config.mixup.alpha,
                 .cutmix_probability = config.cutmix.probability,
                 .mixup_probability = config.mixup.probability};
  return options;
}

void check_augment_options(const AugmentOptions& options, ImageSize size) {
  if (options.crop < 0 || options.crop >= std::min(size.height, size.width)) {
    throw ConfigError(fmt::format("data.augment.crop: {} is not in 0..{} for images of {} x {} pixels", options.crop,
                                  std::min(size.height, size.width) - 1, size.height, size.width));
  }
  if (options.crop > 0 && options.random_resized_crop) {
    throw ConfigError(
        "data.augment.crop and data.augment.random_resized_crop are two ways to the same end: set one of them");
  }
}

AugmentChoice choose_augmentation(const Augmentation& augmentation, std::int64_t id, ImageSize size) {
  const AugmentOptions& options = augmentation.options;
  // The id takes the 64-bit place of the stream's counter: 2^32 epochs are enough, 2^32 examples might not be.
  RandomStream stream(augmentation.seed, "augment", static_cast<std::uint64_t>(id),
                      static_cast<std::uint32_t>(augmentation.epoch));
  AugmentChoice choice{};
  if (options.crop > 0) {
    const auto offsets = static_cast<std::uint64_t>(2 * options.crop + 1);
    choice.shift_y = static_cast<std::int32_t>(static_cast<std::int64_t>(stream.below(offsets)) - options.crop);
    choice.shift_x = static_cast<std::int32_t>(static_cast<std::int64_t>(stream.below(offsets)) - options.crop);
  }
  if (options.flip) choice.flip = static_cast<std::int32_t>(stream() >> 31);
  if (options.erasing > 0.0) choose_erasing(augmentation, id, size, choice);
  return choice;
}

PixelBox choose_part(const Augmentation& augmentation, std::int64_t id, ImageSize whole) {
  RandomStream stream(augmentation.seed, "resized crop", static_cast<std::uint64_t>(id),
                      static_cast<std::uint32_t>(augmentation.epoch));
  constexpr double narrowest = 3.0 / 4.0, widest = 4.0 / 3.0;
  const double smallest = augmentation.options.min_scale;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const double area =
        static_cast<double>(whole.height * whole.width) * (smallest + (1.0 - smallest) * stream.uniform());
    const ImageSize part = rectangle(area, aspect_ratio(stream, narrowest, widest));
    if (part.height < 1 || part.width < 1 || part.height > whole.height || part.width > whole.width) continue;
    const std::int64_t y = random_start(stream, whole.height, part.height);
    return {y, random_start(stream, whole.width, part.width), part.height, part.width};
  }
  const double aspect = static_cast<double>(whole.width) / static_cast<double>(whole.height);
  ImageSize part = whole;
  if (aspect < narrowest) part.height = std::llround(static_cast<double>(whole.width) / narrowest);
  if (aspect > widest) part.width = std::llround(static_cast<double>(whole.height) * widest);
  return {(whole.height - part.height) / 2, (whole.width - part.width) / 2, part.height, part.width};
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
    Places places(shape.height, shape.width);
    for (std::int64_t i = begin; i < end; ++i) {
      const AugmentChoice choice = choices.empty() ? AugmentChoice{} : choices[static_cast<std::size_t>(i)];
      places.set(choice);
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        const std::uint8_t* source = bytes + (ids[static_cast<std::size_t>(i)] * shape.channels + c) * plane;
        float* target = floats + i * image_stride + c * channel_stride;
        const auto plane_converter = column_stride == 1 ? convert_plane<1> : convert_plane<0>;
        plane_converter(source, normalization.table(c), places.rows.data(), places.columns.data(), shape, target,
                        row_stride, column_stride);
        for (std::int64_t y = choice.erase_y; y < choice.erase_y + choice.erase_height; ++y) {
          for (std::int64_t x = choice.erase_x; x < choice.erase_x + choice.erase_width; ++x) {
            target[y * row_stride + x * column_stride] = 0.0f;
          }
        }
      }
    }
  };
  if (parallel) {
    at::parallel_for(0, count, std::max<std::int64_t>(1, 32768 / (plane * shape.channels)), convert);
  } else {
    convert(0, count);
  }
}

void shift_and_flip(const std::uint8_t* source, std::int64_t channels, ImageSize size, const AugmentChoice& choice,
                    std::uint8_t* target) {
  Places places(size.height, size.width);
  places.set(choice);
  for (std::int64_t c = 0; c < channels; ++c, source += size.height * size.width) {
    for (const std::int64_t row : places.rows) {
      for (const std::int64_t column : places.columns) *target++ = source[row * size.width + column];
    }
  }
}

}  // namespace sage
