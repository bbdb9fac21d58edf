// Seconds of a training step (ResNet-20, batch 128, channels last, SGD with momentum) in one process.
// training_step_peer.py times the same step in PyTorch eager.
#include "benchmarks/measure.h"
#include "benchmarks/training_setup.h"

int main() {
  using namespace sage;
  using namespace sage::benchmarks;
  keep_freed_memory();
  const auto single = make_single_communicator(at::kCPU);
  for (const char* precision : {"float32", "bf16"}) {
    TrainingSteps steps(precision, false, *single, *single);
    steps(2);
    std::vector<double> wall, cpu;
    for (int repeat = 0; repeat < 6; ++repeat) {
      const double before = cpu_seconds();
      wall.push_back(seconds_of([&] { steps(1); }));
      cpu.push_back(cpu_seconds() - before);
    }
    const bool full = std::string(precision) == "float32";
    nlohmann::ordered_json row = {
        {"row", fmt::format("training step {}", precision)},
        {"what", fmt::format("training step, ResNet-20, batch 128, one process{}", full ? "" : ", bf16 autocast")},
        {"ours_seconds", median(wall)},
        {"note", fmt::format("our CPU time {:.3f} s", median(cpu))},
        {"target", full ? ">= 1.0" : ""}};
    print_row(row);
  }
}
