// Data-parallel training steps (ResNet-20, global batch 128, one thread a rank): CPU time and wall time for an image,
// against the same step on one rank and (training_step_mpi_peer.py) against PyTorch's DistributedDataParallel on gloo.
#include <unistd.h>

#include "benchmarks/measure.h"
#include "benchmarks/training_setup.h"
#include "distributed/process_group_communicator.h"
#include "distributed/run_guarded.h"
#include "distributed/runtime.h"

namespace sage::benchmarks {
namespace {

constexpr int steps_of_round = 4, rounds = 5;
constexpr double images_of_round = static_cast<double>(steps_of_round * global_batch);

/// ALL ranks. Those who come early sleep: a rank that measures alone has the machine to itself.
void meet(const Runtime& runtime) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(runtime.world(), &request), "MPI_Ibarrier");
  for (int met = 0; met == 0; usleep(1000)) check_mpi(MPI_Test(&request, &met, MPI_STATUS_IGNORE), "MPI_Test");
}

struct Cost {
  std::vector<double> wall, cpu;  // of a round: wall seconds of this rank, CPU seconds of all ranks
};

void measure(TrainingSteps& steps, Communicator& communicator, Cost& cost) {
  const double before = cpu_seconds();
  cost.wall.push_back(seconds_of([&] { steps(steps_of_round); }));
  const at::Tensor spent = at::full({1}, cpu_seconds() - before, at::kDouble);
  communicator.all_reduce_sum(spent);
  cost.cpu.push_back(spent.item<double>());
}

int run(Runtime& runtime) {
  DeviceConfig device;
  device.type = "cpu";
  device.threads = 1;
  runtime.configure(device);
  const auto world = make_communicator(runtime, at::kCPU), statistics = make_communicator(runtime, at::kCPU);
  const auto single = make_single_communicator(at::kCPU);
  TrainingSteps alone("float32", false, *single, *single);
  TrainingSteps together("float32", false, *world, *statistics);
  TrainingSteps synchronised("float32", true, *world, *statistics);
  Cost alone_cost, together_cost, synchronised_cost;
  for (int round = -1; round < rounds; ++round) {
    if (round == 0) alone_cost = together_cost = synchronised_cost = {};
    meet(runtime);
    if (runtime.rank() == 0) measure(alone, *single, alone_cost);
    meet(runtime);
    measure(together, *world, together_cost);
    meet(runtime);
    measure(synchronised, *world, synchronised_cost);
  }
  meet(runtime);
  if (runtime.rank() != 0) return 0;
  const auto of_image = [](const std::vector<double>& seconds) { return median(seconds) / images_of_round; };
  const int ranks = runtime.size();
  const double one = of_image(alone_cost.wall);
  for (const bool synchronises : {false, true}) {
    const Cost& cost = synchronises ? synchronised_cost : together_cost;
    const std::string what = fmt::format("training, ResNet-20, global batch 128, {} ranks x 1 thread{}", ranks,
                                         synchronises ? ", synchronised batch statistics" : "");
    const std::string suffix = fmt::format("{} ranks={}", synchronises ? " sync" : "", ranks);
    const bool compared = !synchronises && ranks == 2;
    print_row({{"row", "training cpu" + suffix},
               {"what", what + ", CPU time for an image"},
               {"ours_seconds", of_image(cost.cpu)},
               {"target", compared ? "<= 0.95" : ""}});
    print_row({{"row", "training wall" + suffix},
               {"what", what + ", wall time for an image"},
               {"ours_seconds", of_image(cost.wall)},
               {"direction", ">="},
               {"target", compared ? ">= 1.0" : ""}});
    print_row({{"row", "training speedup" + suffix},
               {"what", what + ", wall time for an image"},
               {"ours_seconds", of_image(cost.wall)},
               {"peer", "our 1 rank x 1 thread"},
               {"peer_seconds", one},
               {"direction", ">="},
               {"target", compared ? ">= 1.8" : ""}});
  }
  return 0;
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  sage::benchmarks::keep_freed_memory();
  sage::Runtime runtime;
  return sage::run_guarded(runtime, [&] { return sage::benchmarks::run(runtime); });
}
