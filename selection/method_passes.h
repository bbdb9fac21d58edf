// The one pass over the candidates that the methods beside SAGE make: scores, or the factors of the last layer.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "distributed/shard_plan.h"
#include "selection/gradient_passes.h"
#include "selection/selection.h"

namespace sage {

/// Of an example whose factors are not finite: below every score of every method.
constexpr float kNoScore = -2.0f;

/// Which factors of an example are kept.
struct FactorColumns {
  bool features = false, residuals = false, probabilities = false;
  std::int64_t width(std::int64_t feature_count, std::int64_t class_count) const {
    return (features ? feature_count : 0) + (residuals ? class_count : 0) + (probabilities ? class_count : 0);
  }
};

/// Rows of factors of some examples, in host memory.
struct FactorRows {
  std::vector<std::int64_t> positions;  ///< among the candidates, ascending
  at::Tensor values;                    ///< [n, width], float32: features, residuals, probabilities, as wanted
};

/// Passes over candidates, cut as selection.shards and selection.batch_size say, whatever the number of ranks. A pass
/// that is stopped (SelectionRequest::stop_requested) throws SelectionStopped and begins anew when the selection goes
/// on: what it makes is the same.
class MethodPasses {
 public:
  /// ALL ranks. Throws CheckpointError if request.resume_from is damaged or of another request.
  explicit MethodPasses(const SelectionRequest& request);
  /// ALL ranks. Over the examples held out for validation in place of the candidates.
  static MethodPasses over_validation(const SelectionRequest& request);
  MethodPasses(const MethodPasses&) = delete;
  MethodPasses& operator=(const MethodPasses&) = delete;

  /// ALL ranks. A score of every example from its factors: `score` gives [n] for a micro-batch. In the order of ids, on
  /// every rank. Memory: a float for each candidate.
  using Score = std::function<at::Tensor(const MicroBatch&, const ExampleFactors&)>;
  std::vector<float> scores(const Score& score);
  /// ALL ranks. The norm of every example's gradient in the scope of the source.
  std::vector<float> gradient_norms();
  /// ALL ranks. The factors of this rank's examples: width x 4 bytes for each. Rows that are not finite become zeros.
  FactorRows factors(const FactorColumns& columns);

  const ShardPlan& plan() const { return plan_; }
  /// Examples of this rank whose factors or norms were not finite.
  std::int64_t non_finite() const { return non_finite_; }

 private:
  MethodPasses(const SelectionRequest& whole, const SelectionRequest& request);
  [[noreturn]] void stop();
  std::vector<float> gather(const std::vector<float>& mine);
  void put(std::vector<float>& mine, const MicroBatch& batch, const at::Tensor& scores);

  const SelectionRequest& whole_;
  const SelectionRequest request_;  // what the passes go over
  const ShardPlan plan_;
  GradientPasses passes_;
  std::int64_t non_finite_ = 0;
};

/// ALL ranks, once, at the end: sums over ranks into `result`, with a warning where factors were not finite.
/// `bytes_before`: what this rank had sent when the selection began.
void share_statistics(const SelectionRequest& request, std::int64_t non_finite, std::int64_t bytes_before,
                      SelectionResult& result);

}  // namespace sage
