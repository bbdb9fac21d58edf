// Peak memory of a selection among 10,000 and among 50,000 CIFAR-10 images: may differ by N x (ell + F + C) floats and
// no more. Each is measured in a process of its own (this program with arguments), with all images in memory in both.
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "benchmarks/measure.h"
#include "core/error.h"
#include "selection/registry.h"
#include "training/experiment.h"
#include "training/model_gradient_source.h"
#include "training/resources.h"

namespace sage::benchmarks {
namespace {

struct Case {
  const char *name, *model, *scope;
  std::int64_t width;  // 0: the network's own
  std::int64_t size;   // ell
};

// The full scope with a network small enough to take 50,000 images twice; scores of a full scope are kept as S g.
const Case kCases[] = {{"classifier scope, ResNet-20", "resnet20", "classifier", 0, 256},
                       {"full scope, small CNN", "cnn", "full", 8, 64}};

struct Measured {
  double bytes = 0.0, features = 0.0, classes = 0.0;
};

/// In this process: prints what the selection took at its peak, and F and C.
void measure_here(const Case& test, std::int64_t examples) {
  const auto one = make_single_communicator(at::kCPU);
  const std::vector<std::string> settings = {"data.name=cifar10",
                                             fmt::format("model.name={}", test.model),
                                             fmt::format("model.width={}", test.width),
                                             fmt::format("selection.sketch.size={}", test.size),
                                             fmt::format("selection.gradient.scope=[{}]", test.scope),
                                             "selection.scores=cached"};
  const Config config = parse_config("", "benchmark", settings);
  const auto experiment = prepare_experiment(config, at::kCPU, *one);
  const auto network = make_network(*experiment, config.model.name, 1, *one);
  network->eval();
  const auto ids = std::span(experiment->candidates).first(static_cast<std::size_t>(examples));
  const auto labels = std::span(experiment->labels).first(ids.size());  // ids count from 0
  const auto select = [&](std::span<const std::int64_t> some) {
    ModelGradientSource source(*network, *experiment->train_images, experiment->labels, config.selection, 0.0);
    select_examples({.config = config.selection,
                     .seed = 1,
                     .round = 0,
                     .ids = some,
                     .labels = labels.first(some.size()),
                     .class_count = 10,
                     .source = &source,
                     .communicator = *one});
  };
  select(ids.first(640));  // what libraries allocate once
  if (!reset_peak_host_memory())
    throw EnvironmentError("this system does not let a process start its peak memory anew");
  const std::int64_t before = peak_host_memory();
  select(ids);
  fmt::print("{} {} {}\n", peak_host_memory() - before, network->feature_count(), network->class_count());
}

Measured measure(const std::string& program, std::size_t number, std::int64_t examples) {
  const std::string command = fmt::format("'{}' {} {}", program, number, examples);
  std::FILE* pipe = popen(command.c_str(), "r");
  Measured result;
  const int found =
      pipe == nullptr ? 0 : std::fscanf(pipe, "%lf %lf %lf", &result.bytes, &result.features, &result.classes);
  const int status = pipe == nullptr ? -1 : pclose(pipe);
  if (found != 3 || status != 0) throw EnvironmentError(fmt::format("`{}` failed", command));
  return result;
}

void compare(const std::string& program, std::size_t number) {
  const Case& test = kCases[number];
  const Measured few = measure(program, number, 10000), many = measure(program, number, 50000);
  const double allowed = 40000.0 * 4.0 * (static_cast<double>(test.size) + many.features + many.classes);
  print_row({{"row", fmt::format("memory of a selection, {}", test.name)},
             {"what", fmt::format("peak with 50,000 less peak with 10,000 CIFAR-10 images, ell {}", test.size)},
             {"ours_bytes", many.bytes - few.bytes},
             {"peer", "40,000 x (ell + F + C) floats"},
             {"peer_bytes", allowed},
             {"target", "<= 1.0"},
             {"note", fmt::format("peaks {:.0f} and {:.0f} MiB above what was there before", few.bytes / 1048576.0,
                                  many.bytes / 1048576.0)}});
}

}  // namespace
}  // namespace sage::benchmarks

int main(int argc, char** argv) {
  using namespace sage::benchmarks;
  try {
    if (argc == 3) {
      measure_here(kCases[std::strtoul(argv[1], nullptr, 10)], std::strtoll(argv[2], nullptr, 10));
      return 0;
    }
    for (std::size_t number = 0; number < std::size(kCases); ++number) compare(argv[0], number);
  } catch (const sage::Error& error) {
    if (argc == 3) {
      fmt::print(stderr, "{}\n", error.what());
      return static_cast<int>(error.status());
    }
    print_row({{"row", "memory of a selection"}, {"not_run", error.what()}});
  }
}
