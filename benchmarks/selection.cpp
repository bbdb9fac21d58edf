// A selection in the classifier scope, both passes, against one forward-only evaluation of the same examples: ResNet-20
// on CIFAR-10, with the batch size and the threads of the evaluation.
#include <fmt/format.h>

#include "benchmarks/measure.h"
#include "core/error.h"
#include "selection/registry.h"
#include "training/evaluation.h"
#include "training/experiment.h"
#include "training/model_gradient_source.h"

namespace sage::benchmarks {
namespace {

void measure(std::int64_t batch_size) {
  const std::int64_t examples = 10000;
  const auto one = make_single_communicator(at::kCPU);
  const std::vector<std::string> settings = {"data.name=cifar10", "model.name=resnet20", "selection.sketch.size=256",
                                             fmt::format("selection.batch_size={}", batch_size)};
  const Config config = parse_config("", "benchmark", settings);
  const auto experiment = prepare_experiment(config, at::kCPU, *one);
  const auto network = make_network(*experiment, config.model.name, 1, *one);
  network->eval();
  const auto ids = std::span(experiment->candidates).first(static_cast<std::size_t>(examples));
  const auto labels = std::span(experiment->labels).first(ids.size());  // ids count from 0

  SelectionResult result;
  const auto select = [&] {
    ModelGradientSource source(*network, *experiment->train_images, experiment->labels, config.selection, 0.0);
    result = select_examples({.config = config.selection,
                              .seed = 1,
                              .round = 0,
                              .ids = ids,
                              .labels = labels,
                              .class_count = 10,
                              .source = &source,
                              .communicator = *one});
  };
  const auto forward = [&] {
    evaluate(*network, *experiment->train_images, experiment->labels, ids, batch_size, *one, "float32");
  };
  const std::vector<double> seconds = interleaved_medians(3, {forward, select});
  const SelectionSeconds& parts = result.seconds;
  print_row({{"row", fmt::format("selection, classifier scope, batch {}", batch_size)},
             {"what", fmt::format("selection of {} CIFAR-10 images, ResNet-20, ell 256", examples)},
             {"ours_seconds", seconds[1]},
             {"peer", "one evaluation of the same images"},
             {"peer_seconds", seconds[0]},
             {"target", "<= 1.3"},
             {"note", fmt::format("the last: sketch {:.2f} s, merge {:.2f} s, score {:.2f} s, choose {:.2f} s; {}",
                                  parts.sketch, parts.merge, parts.score, parts.choose, result.certificate->sketch)}});
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  try {
    for (const std::int64_t batch_size : {64, 256}) sage::benchmarks::measure(batch_size);
  } catch (const sage::DataError& error) {
    sage::benchmarks::print_row({{"row", "selection, classifier scope"}, {"not_run", error.what()}});
  }
}
