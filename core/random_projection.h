// A random projection in place of a sketch: no pass over the data, no communication, no knowledge of the gradients.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace sage {

/// What the independent entries of S [size, D] are drawn from. All have mean 0 and variance 1 / size, so that
/// E ||S g||^2 = ||g||^2, and fourth moments of 3, 1 and 1 / density times that of a sign.
enum class ProjectionKind {
  gaussian,    ///< N(0, 1 / size): Johnson and Lindenstrauss, 1984
  rademacher,  ///< +-1 / sqrt(size)
  sparse,      ///< +-1 / sqrt(density size), each with probability density / 2, else 0. Density 1/3: Achlioptas,
               ///< "Database-friendly random projections", JCSS 66(4), 2003; 1 / sqrt(D): Li, Hastie, Church, "Very
               ///< sparse random projections", KDD 2006
};
/// Throws ConfigError for any name but those of the enumerators.
ProjectionKind projection_kind(std::string_view name);

struct RandomProjectionOptions {
  std::uint64_t seed = 0;
  std::int64_t size = 0;       ///< rows
  std::int64_t dimension = 0;  ///< D
  ProjectionKind kind = ProjectionKind::gaussian;
  double density = -1.0;  ///< sparse: in (0, 1]; below 0: 1 / sqrt(D)
  at::Device device = at::kCPU;
  at::ScalarType type = at::kFloat;  ///< float32 or bfloat16
};

/// S. An entry is a function of the seed, its row (in blocks of 64) and its column alone (sparse: and of the density):
/// every rank makes the same matrix, whatever its threads. It is drawn by blocks of columns, straight into `type` on
/// `device`: beside S itself only size x 4096 numbers are held. Throws ConfigError for a density outside (0, 1].
at::Tensor random_projection(const RandomProjectionOptions& options);
/// Its columns [first, first + count).
at::Tensor random_projection_columns(const RandomProjectionOptions& options, std::int64_t first, std::int64_t count);

}  // namespace sage
