// Seconds of choosing one coreset of 128 from 500 examples on one core, from residuals to weights: class by class, as
// crest does, and all in one function. facility_location_peer.py does the same with NumPy.
#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>

#include "benchmarks/measure.h"
#include "selection/facility_location.h"
#include "training/crest/coresets.h"

int main() {
  using namespace sage;
  using namespace sage::benchmarks;
  at::set_num_threads(1);
  constexpr std::int64_t classes = 10, examples = 500, size = 128;
  const at::Tensor residuals = at::softmax(at::randn({examples, classes}, at::kFloat), 1);
  const CoresetOptions options{.size = size, .of_each_class = examples / classes, .class_count = classes};
  const auto seconds = interleaved_medians(
      30, {[&] { choose_of_set(residuals, options, 0); }, [&] { lazy_greedy(similarity_of(residuals), size); }});
  const char* rows[] = {"facility location, 10 classes of 50", "facility location, one class of 500"};
  for (std::size_t i = 0; i < 2; ++i) {
    print_row({{"row", std::string(rows[i]) + ", limit"},
               {"what", "one coreset of 128 from 500 examples, one core"},
               {"ours_seconds", seconds[i]},
               {"peer", "6 ms"},
               {"peer_seconds", 6e-3},
               {"target", "<= 1.0"}});
    print_row({{"row", rows[i]},
               {"what", "one coreset of 128 from 500 examples, one core"},
               {"ours_seconds", seconds[i]},
               {"target", ">= 5"}});
  }
}
