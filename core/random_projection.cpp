#include "core/random_projection.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace sage {

at::Tensor random_projection(std::uint64_t seed, std::int64_t size, std::int64_t dimension, at::Device device) {
  require(size >= 1 && dimension >= 1, "random_projection: at least one row and one column");
  constexpr std::int64_t kRowBlock = 64;
  constexpr std::int64_t kColumnsPerTask = 256;
  at::Tensor projection = at::empty({size, dimension}, at::kFloat);
  float* const entries = projection.mutable_data_ptr<float>();
  const double deviation = 1.0 / std::sqrt(static_cast<double>(size));
  at::parallel_for(0, dimension, kColumnsPerTask, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t column = first; column < last; ++column) {
      for (std::int64_t block = 0; block * kRowBlock < size; ++block) {
        RandomStream stream(seed, "random projection", static_cast<std::uint64_t>(column),
                            static_cast<std::uint32_t>(block));
        const std::int64_t end = std::min(size, (block + 1) * kRowBlock);
        for (std::int64_t row = block * kRowBlock; row < end; ++row) {
          entries[row * dimension + column] = static_cast<float>(deviation * stream.normal());
        }
      }
    }
  });
  return projection.to(device);
}

}  // namespace sage
