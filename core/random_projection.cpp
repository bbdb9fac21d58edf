#include "core/random_projection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

constexpr std::int64_t kRowBlock = 64;
constexpr std::int64_t kColumnBlock = 4096;
constexpr std::int64_t kColumnsPerTask = 256;

double density_of(const RandomProjectionOptions& options) {
  const double density =
      options.density < 0.0 ? 1.0 / std::sqrt(static_cast<double>(options.dimension)) : options.density;
  if (!(density > 0.0 && density <= 1.0)) {
    throw ConfigError(
        fmt::format("selection.sketch.density must be `auto`, or above 0 and at most 1 (it is {})", options.density));
  }
  return density;
}

/// Fills a column from draw(stream, row within its block), a stream for each block of rows.
template <class Draw>
void fill_column(float* column, std::int64_t stride, const RandomProjectionOptions& options, const char* name,
                 std::int64_t index, const Draw& draw) {
  for (std::int64_t block = 0; block * kRowBlock < options.size; ++block) {
    RandomStream stream(options.seed, name, static_cast<std::uint64_t>(index), static_cast<std::uint32_t>(block));
    const std::int64_t first = block * kRowBlock, last = std::min(options.size, first + kRowBlock);
    for (std::int64_t row = first; row < last; ++row) column[row * stride] = draw(stream, row - first);
  }
}

void fill_column(float* column, std::int64_t stride, const RandomProjectionOptions& options, double density,
                 std::int64_t index) {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(options.size));
  switch (options.kind) {
    case ProjectionKind::gaussian:
      fill_column(column, stride, options, "random projection", index,
                  [&](RandomStream& stream, std::int64_t) { return static_cast<float>(deviation * stream.normal()); });
      break;
    case ProjectionKind::rademacher: {
      const auto value = static_cast<float>(deviation);
      std::uint32_t signs = 0;  // 32 of them in each draw
      fill_column(column, stride, options, "random signs", index, [&](RandomStream& stream, std::int64_t row) {
        if (row % 32 == 0) signs = stream();
        const bool is_negative = (signs >> (row % 32) & 1) != 0;
        return is_negative ? -value : value;
      });
      break;
    }
    case ProjectionKind::sparse: {
      const auto value = static_cast<float>(deviation / std::sqrt(density));
      const double below = density * 0x1p32;
      fill_column(column, stride, options, "sparse signs", index, [&](RandomStream& stream, std::int64_t) {
        const auto draw = static_cast<double>(stream());
        return draw < 0.5 * below ? value : draw < below ? -value : 0.0f;
      });
      break;
    }
  }
}

}  // namespace

ProjectionKind projection_kind(std::string_view name) {
  if (name == "gaussian") return ProjectionKind::gaussian;
  if (name == "rademacher") return ProjectionKind::rademacher;
  if (name == "sparse") return ProjectionKind::sparse;
  throw ConfigError(
      fmt::format("selection.sketch.projection must be one of gaussian, rademacher, sparse (it is `{}`)", name));
}

at::Tensor random_projection(const RandomProjectionOptions& options) {
  return random_projection_columns(options, 0, options.dimension);
}

at::Tensor random_projection_columns(const RandomProjectionOptions& options, std::int64_t first, std::int64_t count) {
  require(options.size >= 1 && options.dimension >= 1, "random_projection: at least one row and one column");
  require(first >= 0 && count >= 0 && first + count <= options.dimension, "random_projection: there is no such column");
  const double density = options.kind == ProjectionKind::sparse ? density_of(options) : 1.0;
  at::Tensor projection = at::empty({options.size, count}, at::TensorOptions(options.device).dtype(options.type));
  at::Tensor block = at::empty({options.size, std::min(kColumnBlock, count)}, at::kFloat);
  float* const entries = block.mutable_data_ptr<float>();
  const std::int64_t stride = block.size(1);
  for (std::int64_t done = 0; done < count; done += stride) {
    const std::int64_t columns = std::min(stride, count - done);
    at::parallel_for(0, columns, kColumnsPerTask, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t column = begin; column < end; ++column) {
        fill_column(entries + column, stride, options, density, first + done + column);
      }
    });
    projection.narrow(1, done, columns).copy_(block.narrow(1, 0, columns));
  }
  return projection;
}

}  // namespace sage
