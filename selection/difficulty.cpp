#include "selection/difficulty.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"
#include "core/stopwatch.h"
#include "core/trace.h"
#include "selection/choice.h"
#include "selection/method_passes.h"
#include "selection/methods.h"

namespace sage {
namespace {

/// ||p - onehot|| of each example of a micro-batch.
at::Tensor error_norms(const MicroBatch& batch, const ExampleFactors& factors) {
  at::Tensor errors = factors.probabilities.to(at::kDouble);
  const at::Tensor index = at::tensor(at::ArrayRef<std::int64_t>(batch.labels.data(), batch.labels.size()), at::kLong)
                               .to(errors.device())
                               .unsqueeze(1);
  errors.scatter_add_(1, index, at::full(index.sizes(), -1.0, errors.options()));
  return at::linalg_vector_norm(errors, 2, at::IntArrayRef{1});
}

/// Never learned counts as one more than the most forgotten.
std::vector<float> forgetting_scores(const SelectionRequest& request, SelectionResult& result) {
  if (request.forgotten.empty()) {
    result.warnings.emplace_back(
        "there is no history of forgetting (no training on these examples before the selection): all examples count as "
        "never learned, and the choice is random; give the network, or with selection.scorer=proxy the proxy, some "
        "epochs first");
    return std::vector<float>(request.ids.size(), 1.0f);
  }
  require(request.forgotten.size() == request.ids.size(), "one history for each candidate");
  const std::int64_t most = std::max<std::int64_t>(0, *std::ranges::max_element(request.forgotten));
  std::vector<float> scores;
  for (const std::int64_t count : request.forgotten) {
    scores.push_back(static_cast<float>(count == kNeverLearned ? most + 1 : count));
  }
  return scores;
}

SelectionResult select_hardest(const SelectionRequest& request, const char* method) {
  SelectionResult result;
  result.method = result.scoring = method;
  result.scores = difficulty_of(request, method, result);
  const SecondsAdder watch(result.seconds.choose);
  for (const std::int64_t position : best_by_score(request, result.scores)) {
    result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  }
  describe_classes(request, result);
  return result;
}

}  // namespace

std::vector<float> difficulty_of(const SelectionRequest& request, const std::string& score, SelectionResult& result) {
  const at::NoGradGuard no_grad;
  const SecondsAdder watch(result.seconds.score);
  const trace::Span span("score pass", trace::keeps_all());
  if (score == "forgetting") return forgetting_scores(request, result);
  if (!request.difficulty.empty()) {
    require(request.difficulty.size() == request.ids.size(), "one difficulty for each candidate");
    return {request.difficulty.begin(), request.difficulty.end()};
  }
  const std::int64_t bytes_before = request.communicator.traffic().bytes_sent;
  MethodPasses passes(request);
  std::vector<float> scores = score == "grand" ? passes.gradient_norms() : passes.scores(error_norms);
  share_statistics(request, passes.non_finite(), bytes_before, result);
  return scores;
}

SelectionResult select_el2n(const SelectionRequest& request) { return select_hardest(request, "el2n"); }

SelectionResult select_grand(const SelectionRequest& request) { return select_hardest(request, "grand"); }

SelectionResult select_forgetting(const SelectionRequest& request) {
  SelectionResult result;
  result.method = result.scoring = "forgetting";
  result.scores = difficulty_of(request, "forgetting", result);
  const SecondsAdder watch(result.seconds.choose);
  // Equals in random order: the scores in that order are what ties to the lower position are broken in.
  const auto count = static_cast<std::int64_t>(request.ids.size());
  const std::vector<std::int64_t> order =
      random_permutation(count, RandomStream(request.seed, "forgetting", request.round));
  std::vector<float> scores;
  std::vector<std::int64_t> labels;
  for (const std::int64_t position : order) {
    scores.push_back(result.scores[static_cast<std::size_t>(position)]);
    labels.push_back(request.labels[static_cast<std::size_t>(position)]);
  }
  SelectionRequest shuffled = request;
  shuffled.labels = labels;
  for (const std::int64_t place : best_by_score(shuffled, scores)) {
    result.kept.push_back(request.ids[static_cast<std::size_t>(order[static_cast<std::size_t>(place)])]);
  }
  std::sort(result.kept.begin(), result.kept.end());
  describe_classes(request, result);
  return result;
}

}  // namespace sage
