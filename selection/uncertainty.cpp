#include <ATen/core/grad_mode.h>
#include <ATen/ops/where.h>

#include "core/stopwatch.h"
#include "core/trace.h"
#include "selection/choice.h"
#include "selection/method_passes.h"
#include "selection/methods.h"

namespace sage {
namespace {

/// The larger the less certain.
at::Tensor uncertainty(const at::Tensor& probabilities, const std::string& score) {
  const at::Tensor p = probabilities.to(at::kDouble);
  if (score == "entropy") return at::where(p > 0.0, p * p.log(), 0.0).sum(1).neg();
  const std::int64_t wanted = score == "margin" && p.size(1) > 1 ? 2 : 1;
  const at::Tensor highest = std::get<0>(p.topk(wanted, 1));
  if (wanted == 2) return highest.select(1, 1) - highest.select(1, 0);
  return 1.0 - highest.select(1, 0);
}

}  // namespace

SelectionResult select_uncertainty(const SelectionRequest& request) {
  const at::NoGradGuard no_grad;
  const std::int64_t bytes_before = request.communicator.traffic().bytes_sent;
  SelectionResult result;
  result.method = "uncertainty";
  result.scoring = request.config.uncertainty.score;
  MethodPasses passes(request);
  {
    const SecondsAdder watch(result.seconds.score);
    const trace::Span span("score pass", trace::keeps_all());
    result.scores = passes.scores([&](const MicroBatch&, const ExampleFactors& factors) {
      return uncertainty(factors.probabilities, result.scoring);
    });
  }
  const SecondsAdder watch(result.seconds.choose);
  for (const std::int64_t position : best_by_score(request, result.scores)) {
    result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  }
  describe_classes(request, result);
  share_statistics(request, passes.non_finite(), bytes_before, result);
  return result;
}

}  // namespace sage
