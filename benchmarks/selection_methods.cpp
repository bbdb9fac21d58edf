// The other selection methods against SAGE's own selection: 50,000 examples of Fashion-MNIST, 10 classes, 5 % kept, the
// small CNN, classifier scope. The CNN is quick, so that what the methods do behind its forward pass weighs the most.
#include <fmt/format.h>

#include "benchmarks/measure.h"
#include "core/error.h"
#include "selection/registry.h"
#include "training/experiment.h"
#include "training/model_gradient_source.h"

namespace sage::benchmarks {
namespace {

struct Case {
  const char *name, *target;
  std::vector<std::string> settings;
};

// The targets are those that the project has set itself; the others are there to be known.
const Case kCases[] = {
    {"gradmatch", "<= 3", {"selection.method=gradmatch"}},
    {"k-center", "<= 2", {"selection.method=diversity"}},
    {"herding", "<= 2", {"selection.method=herding"}},
    {"craig", "", {"selection.method=craig"}},
    {"facility location", "", {"selection.method=submodular"}},
    {"graph cut", "", {"selection.method=submodular", "selection.submodular.function=graph_cut"}},
    {"glister", "", {"selection.method=glister"}},
    {"uncertainty", "", {"selection.method=uncertainty"}},
    {"grand", "", {"selection.method=grand"}},
    {"gradmatch among all", "", {"selection.method=gradmatch", "selection.per_class=false"}},
    {"k-center among all", "", {"selection.method=diversity", "selection.per_class=false"}},
};

Config config_of(const std::vector<std::string>& more) {
  // A sixth is held out: 50,000 candidates, and 10,000 examples for glister.
  std::vector<std::string> settings = {"data.name=fashion_mnist", "data.validation_fraction=0.16666666666666666",
                                       "model.name=cnn", "selection.fraction=0.05", "selection.batch_size=256"};
  settings.insert(settings.end(), more.begin(), more.end());
  return parse_config("", "benchmark", settings);
}

void measure() {
  const auto one = make_single_communicator(at::kCPU);
  const auto experiment = prepare_experiment(config_of({}), at::kCPU, *one);
  const auto network = make_network(*experiment, experiment->config.model.name, 1, *one);
  network->eval();
  std::vector<std::int64_t> labels, validation_labels;
  for (const auto id : experiment->candidates) labels.push_back(experiment->labels[static_cast<std::size_t>(id)]);
  for (const auto id : experiment->validation) {
    validation_labels.push_back(experiment->labels[static_cast<std::size_t>(id)]);
  }
  const auto select = [&](const Config& config) {
    ModelGradientSource source(*network, *experiment->train_images, experiment->labels, config.selection, 0.0);
    return select_examples({.config = config.selection,
                            .seed = 1,
                            .round = 0,
                            .ids = experiment->candidates,
                            .labels = labels,
                            .class_count = 10,
                            .source = &source,
                            .communicator = *one,
                            .validation_ids = experiment->validation,
                            .validation_labels = validation_labels});
  };
  const Config sage = config_of({"selection.method=sage"});
  std::vector<Config> configs;
  for (const Case& test : kCases) configs.push_back(config_of(test.settings));
  std::vector<SelectionResult> last(configs.size());
  std::vector<std::function<void()>> actions = {[&] { select(sage); }};
  for (std::size_t i = 0; i < configs.size(); ++i) actions.emplace_back([&, i] { last[i] = select(configs[i]); });
  const std::vector<double> seconds = interleaved_medians(1, actions);
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const SelectionSeconds& parts = last[i].seconds;
    print_row({{"row", fmt::format("selection by {}", kCases[i].name)},
               {"what", fmt::format("{} of {} Fashion-MNIST images, small CNN", last[i].kept.size(), labels.size())},
               {"ours_seconds", seconds[i + 1]},
               {"peer", "selection by sage of the same images, ell 256"},
               {"peer_seconds", seconds[0]},
               {"target", kCases[i].target},
               {"note", fmt::format("the last: pass {:.2f} s, choice {:.2f} s", parts.score, parts.choose)}});
  }
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  try {
    sage::benchmarks::measure();
  } catch (const sage::DataError& error) {
    sage::benchmarks::print_row({{"row", "selection by other methods"}, {"not_run", error.what()}});
  }
}
