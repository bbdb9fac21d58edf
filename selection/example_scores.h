// The second half of SAGE: from a sketch to a score of every example, and what is needed to doubt its label.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "selection/clusters.h"
#include "selection/gradient_passes.h"
#include "selection/label_filter.h"
#include "selection/projected_gradients.h"
#include "selection/selection.h"

namespace sage {

/// The score of an example whose projected gradient is zero or not finite: below every agreement and every norm, and
/// finite, so that any file format holds it.
constexpr float kLowestScore = -2.0f;

/// Whether the disagreeing tail is cut off, so that doubts are counted and peers' scores kept.
inline bool doubts_labels(const SelectionConfig& config) { return config.keep != "top"; }

/// One of the two by_...() and then gather(), ALL ranks. They return false where the selection was asked to stop.
class ExampleScores {
 public:
  /// All must outlive this object. `doubts`: with thresholds before by_...(), if doubts_labels().
  ExampleScores(const SelectionRequest& request, const ShardPlan& plan, const GradientPasses& passes,
                ConfidentCounting& doubts);

  /// a_i = <z_i, u_(y_i)>, or the cosine to the nearest of selection.clusters directions. S [r, D] on the source's
  /// device; `keeps_vectors`: S g is kept between the walks, in selection.cache_precision.
  [[nodiscard]] bool by_agreement(at::Tensor sketch, bool keeps_vectors);
  /// ||g_i||, in one pass: the projection is onto nothing; the source computes norms on the way.
  [[nodiscard]] bool by_norm();

  /// Scores, peers' scores and the strength of consensus of all examples into `result`; counts the suspects.
  void gather(SelectionResult& result);

  /// Examples of this rank that have the lowest score.
  std::int64_t degenerate() const { return degenerate_; }
  /// After by_agreement().
  ProjectedGradients& gradients() { return *gradients_; }

 private:
  using UseVectors = std::function<void(const MicroBatch&, const UnitVectors&)>;
  bool agree_with_class();
  bool agree_with_nearest();
  void begin_clusters(ClusterDirections& clusters);
  GradientPasses::UseProbabilities count_suspects();
  bool walk_first(const UseVectors& use);
  bool walk(const UseVectors& use);
  void take_scores(const MicroBatch& batch, const UnitVectors& vectors, const std::vector<float>& agreement);
  void append_norms(const at::Tensor& squared_norms);
  std::vector<float> gather(const std::vector<float>& values);

  const SelectionRequest& request_;
  const SelectionConfig& config_;
  Communicator& communicator_;
  const ShardPlan& plan_;
  const GradientPasses& passes_;
  ConfidentCounting& doubts_;
  std::unique_ptr<ProjectedGradients> gradients_;
  std::vector<float> scores_;  // of this rank's examples, as the following
  PeerScores peers_;
  std::int64_t degenerate_ = 0;
  std::vector<double> strength_;
};

}  // namespace sage
