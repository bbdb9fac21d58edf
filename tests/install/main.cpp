// Sketches a random matrix with the installed library and prints its certificate and the true error.
#include <sage/core/error.h>
#include <sage/core/frequent_directions.h>
#include <sage/core/log.h>
#include <sage/core/random.h>
#include <sage/distributed/communicator.h>
#include <sage/selection/registry.h>

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigvalsh.h>

int main() {
  constexpr int rows = 500, columns = 40;
  sage::RandomStream random(7, "matrix");
  at::Tensor matrix = at::empty({rows, columns});
  for (int i = 0; i < rows * columns; ++i) {
    matrix.data_ptr<float>()[i] = static_cast<float>(random.normal() / (1 + i % columns));
  }

  sage::FrequentDirections sketch({.dimension = columns, .size = 16});
  sketch.update(matrix);
  const at::Tensor kept = sketch.matrix().to(at::kDouble), all = matrix.to(at::kDouble);
  const at::Tensor difference = all.t().mm(all).sub(kept.t().mm(kept));
  const double error = at::linalg_eigvalsh(difference).abs().max().item<double>();

  // A world of one rank: linking the distributed and the selection part is part of the test.
  const auto world = sage::make_single_communicator(at::kCPU);
  fmt::print("rows {} ranks {} methods {} error {} certificate {}\n", kept.size(0), world->size(),
             sage::selection_methods().size(), error, sketch.error_bound());
  return error <= sketch.error_bound() * (1 + 1e-5) ? 0 : 1;
}
