// The fit of crest's quadratic model on one mini-batch coreset (ResNet-20, batch 128): gradient and Hutchinson's
// diagonal in both ways, in parts as the run takes them, against a training step: its time, and its memory at the peak.
#include <ATen/ops/zeros.h>

#include "benchmarks/measure.h"
#include "benchmarks/training_setup.h"
#include "training/crest/example_outputs.h"
#include "training/crest/hutchinson.h"
#include "training/resources.h"

namespace sage::benchmarks {
namespace {

constexpr int parts = 4;  // as in training/crest/crest.cpp

class Fit {
 public:
  explicit Fit(Communicator& single)
      : experiment_(resnet20_experiment("float32", false)),
        network_(make_network(*experiment_, "resnet20", 0, single)),
        batch_(random_batch(single)),
        parameters_(network_->parameters()) {
    const std::int64_t dimension = parameter_count(*network_);
    probe_ = random_signs(RandomStream(1, "benchmark"), dimension, at::kCPU);
    gradient_ = at::zeros({dimension});
    diagonal_ = at::zeros({dimension});
    network_->eval();
  }
  void operator()(HessianProduct how) {
    for (int part = 0; part < parts; ++part) {
      const Range range = balanced_range(batch_.images.size(0), part, parts);
      add_derivatives(
          [&] {
            return cross_entropy_by_operations(network_->forward(batch_.images.narrow(0, range.begin, range.size())),
                                               batch_.labels.narrow(0, range.begin, range.size()), 0.0)
                .mean();
          },
          parameters_, probe_, how, gradient_, diagonal_);
    }
  }

 private:
  std::unique_ptr<Experiment> experiment_;
  std::shared_ptr<Classifier> network_;
  Batch batch_;
  std::vector<at::Tensor> parameters_;
  at::Tensor probe_, gradient_, diagonal_;
};

/// Above what is there before, which freed memory of earlier work must not hide: called before any is kept.
double peak_of(const std::function<void()>& action) {
  malloc_trim(0);
  reset_peak_host_memory();
  const std::int64_t before = peak_host_memory();
  action();
  return static_cast<double>(peak_host_memory() - before);
}

void measure() {
  const auto single = make_single_communicator(at::kCPU);
  TrainingSteps step("float32", false, *single, *single);
  Fit fit(*single);
  const std::pair<const char*, HessianProduct> ways[] = {
      {"double backward", HessianProduct::double_backward},
      {"forward over reverse", HessianProduct::forward_over_reverse}};
  step(1);
  for (const auto& [name, how] : ways) fit(how);
  const double of_step = peak_of([&] { step(1); });
  double of_fit[2];
  for (int i = 0; i < 2; ++i) of_fit[i] = peak_of([&, i] { fit(ways[i].second); });
  keep_freed_memory();
  const auto seconds =
      interleaved_medians(4, {[&] { step(1); }, [&] { fit(ways[0].second); }, [&] { fit(ways[1].second); }});
  for (std::size_t i = 0; i < 2; ++i) {
    print_row({{"row", std::string("crest fit, ") + ways[i].first},
               {"what", "gradient and diagonal of the Hessian of one coreset, ResNet-20, 128 examples"},
               {"ours_seconds", seconds[i + 1]},
               {"peer", "our training step on the same"},
               {"peer_seconds", seconds[0]},
               {"target", ""}});
    print_row({{"row", std::string("memory of crest's fit, ") + ways[i].first},
               {"what", "peak above what was there before"},
               {"ours_bytes", of_fit[i]},
               {"peer", "our training step on the same"},
               {"peer_bytes", of_step},
               {"target", "<= 1.0"}});
  }
}

}  // namespace
}  // namespace sage::benchmarks

int main() { sage::benchmarks::measure(); }
