// A random projection in place of a sketch: no pass over the data, no communication, no knowledge of the gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace sage {

/// S [size, dimension], float32, with independent entries of N(0, 1 / size), so that E ||S g||^2 = ||g||^2 (Johnson and
/// Lindenstrauss, 1984). An entry is a function of the seed, its row (in blocks of 64) and its column alone: every rank
/// makes the same matrix.
at::Tensor random_projection(std::uint64_t seed, std::int64_t size, std::int64_t dimension, at::Device device);

}  // namespace sage
