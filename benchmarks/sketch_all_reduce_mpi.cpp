// The all-reduce for sketches without the arithmetic of its shrinks, against MPI_Allreduce of as many bytes. The
// shrinks (Gram blocks, decompositions by one rank of each group, rotations of a rank's own columns) are timed apart,
// on matrices of the same shapes and in the same order, and taken off.
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <malloc.h>

#include <array>

#include "benchmarks/measure.h"
#include "core/frequent_directions.h"
#include "core/linear_algebra.h"
#include "distributed/process_group_communicator.h"
#include "distributed/runtime.h"
#include "distributed/sketch_all_reduce.h"

namespace sage::benchmarks {
namespace {

/// ALL ranks: from when all are ready until the last one has done.
template <class Action>
double seconds_of_all(const Action& action) {
  check_mpi(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier");
  double seconds = seconds_of(action);
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce");
  return seconds;
}

/// ALL ranks. What merging `state` with its like over all ranks computes, with nothing sent.
void shrink_alone(const SketchState& state, int rank, int ranks) {
  std::int64_t columns = state.rule.dimension;
  for (int group = 2; group <= ranks; group *= 2) {
    columns = (columns + 1) / 2;
    const at::Tensor half = state.rows.narrow(1, 0, columns);
    const at::Tensor cross = cross_gram(half, half);
    ShrinkDecision decision;
    decision.rotation = at::rand({state.row_count(), 2 * state.row_count()}, at::kDouble);
    if (rank % group == 0) {
      decision = decompose(merged_gram(state.eigenvalues, state.eigenvalues, cross), state.rule, at::kFloat, 0.0, 0.0);
    }
    check_mpi(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier");
    rotate_rows(decision.rotation, std::array{half, half});
  }
}

void measure(Communicator& communicator, std::int64_t dimension, std::int64_t size) {
  const int rank = communicator.rank(), ranks = communicator.size();
  FrequentDirections sketch({.dimension = dimension, .size = size});
  sketch.update(at::randn({2 * size, dimension}, at::kFloat));
  const SketchState local = sketch.state();
  at::Tensor sum = local.rows.clone();

  std::vector<double> whole, shrinks, without, peer;
  SketchTraffic traffic;
  for (int repeat = -1; repeat < 7; ++repeat) {
    traffic = {};
    const double total = seconds_of_all([&] { sketch_all_reduce(local, communicator, &traffic); });
    const double arithmetic = seconds_of_all([&] { shrink_alone(local, rank, ranks); });
    const double reduced = seconds_of_all([&] {
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, sum.mutable_data_ptr(), static_cast<int>(sum.numel()), MPI_FLOAT, MPI_SUM,
                              MPI_COMM_WORLD),
                "MPI_Allreduce");
    });
    if (repeat < 0) continue;
    whole.push_back(total);
    shrinks.push_back(arithmetic);
    without.push_back(total - arithmetic);
    peer.push_back(reduced);
  }
  if (rank != 0) return;
  const double least = 2.0 * (1.0 - 1.0 / ranks) * static_cast<double>(local.rows.nbytes());
  print_row(
      {{"row", fmt::format("sketch all-reduce P={} D={} ell={}", ranks, dimension, size)},
       {"what",
        fmt::format("all-reduce for sketches without its shrinks, {} ranks, D = {}, ell = {}", ranks, dimension, size)},
       {"ours_seconds", median(without)},
       {"peer", "MPI_Allreduce of the same bytes"},
       {"peer_seconds", median(peer)},
       {"target", "<= 1.5"},
       {"note", fmt::format("{:.1f} ms with its shrinks, which take {:.1f} ms; rank 0 sends {:.1f} MB of rows (least: "
                            "{:.1f}) and {:.2f} MB besides",
                            1e3 * median(whole), 1e3 * median(shrinks), 1e-6 * static_cast<double>(traffic.row_bytes),
                            1e-6 * least, 1e-6 * static_cast<double>(traffic.control_bytes))}});
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  // As the program does (launch/main.cpp): memory that was freed is used again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  sage::Runtime runtime;
  runtime.configure({});
  const auto communicator = sage::make_communicator(runtime, at::Device(at::kCPU));
  for (const std::int64_t size : {64, 256}) sage::benchmarks::measure(*communicator, 65000, size);
  for (const std::int64_t size : {16, 64}) sage::benchmarks::measure(*communicator, 270000, size);
}
