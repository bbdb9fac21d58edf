// Frequent Directions: seconds for a row of a stream, against the arithmetic that the method needs at the machine's own
// rate of multiplying matrices (4 ell D multiply-adds a row at a buffer of 2 ell rows), and against a buffer that is
// shrunk with an SVD in PyTorch (sketch_peer.py).
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include "benchmarks/measure.h"
#include "core/frequent_directions.h"

namespace sage::benchmarks {
namespace {

void measure(std::int64_t dimension, std::int64_t size) {
  // Whole shrinks, so that each costs its full share: in the steady state a buffer of 2 ell rows takes ell + 1 new ones
  // before each. The rows wait in a pool of normal numbers, which no shrink finds easier than any others.
  FrequentDirections sketch({.dimension = dimension, .size = size});
  const at::Tensor pool = at::randn({size + 1, dimension}, at::kFloat);
  sketch.update(pool.narrow(0, 0, size));
  sketch.update(pool);

  MatrixProduct product;
  const int shrinks = 3;
  const auto rows = static_cast<double>(shrinks * (size + 1));
  const std::vector<double> seconds = interleaved_medians(7, {[&] { product(); },
                                                              [&] {
                                                                for (int i = 0; i < shrinks; ++i) sketch.update(pool);
                                                              },
                                                              [&] { product(); }});
  const double rate = product.multiply_adds() / std::min(seconds[0], seconds[2]);
  const double a_row = seconds[1] / rows;
  const double limit = 4.0 * static_cast<double>(size) * static_cast<double>(dimension) / rate;
  const std::string what = fmt::format("sketch update, D = {}, ell = {}, a row", dimension, size);
  print_row({{"row", fmt::format("sketch arithmetic D={} ell={}", dimension, size)},
             {"what", what},
             {"ours_seconds", a_row},
             {"peer", "4 ell D multiply-adds at the rate of a large float32 product"},
             {"peer_seconds", limit},
             {"target", "<= 1.5"},
             {"note", fmt::format("{:.0f} G multiply-adds/s", rate * 1e-9)}});
  print_row({{"row", fmt::format("sketch svd D={} ell={}", dimension, size)},
             {"what", what},
             {"ours_seconds", a_row},
             {"target", ">= 20"}});
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  for (const std::int64_t dimension : {65000, 270000}) {
    for (const std::int64_t size : {64, 256}) sage::benchmarks::measure(dimension, size);
  }
}
