// What a selection method is given and what it answers. All ranks give the same request (but for the source, which
// computes for any example) and get the same answer.
#pragma once
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/named_tensor.h"
#include "distributed/communicator.h"
#include "selection/gradient_source.h"

namespace sage {

/// What a selection that was stopped half-way needs to go on, on any number of ranks: sketches of the logical shards,
/// finished or begun, or their sum, and what was counted so far.
struct SelectionState {
  std::string json;
  std::vector<NamedTensor> tensors;  ///< names without '/'
};

/// Thrown by select() on ALL ranks where stop_requested said so. `state` is whole on rank 0, empty on the others.
class SelectionStopped : public std::exception {
 public:
  explicit SelectionStopped(SelectionState state) : state_(std::move(state)) {}
  const SelectionState& state() const noexcept { return state_; }
  const char* what() const noexcept override { return "the selection was stopped and can go on later"; }

 private:
  SelectionState state_;
};

/// In SelectionRequest::forgotten: never right so far.
constexpr std::int64_t kNeverLearned = -1;

struct SelectionRequest {
  const SelectionConfig& config;
  std::uint64_t seed = 0;
  std::uint64_t round = 0;               ///< number of this selection in the run: random draws differ between rounds
  std::span<const std::int64_t> ids;     ///< candidates: examples of the training set, ascending
  std::span<const std::int64_t> labels;  ///< of `ids`, in [0, class_count)
  std::int64_t class_count = 0;
  GradientSource* source = nullptr;  ///< may be null for methods that need no gradients (registry: needs_gradients)
  Communicator& communicator;
  /// Examples held out for validation and their labels (registry: needs_validation).
  std::span<const std::int64_t> validation_ids = {}, validation_labels = {};
  /// Of `ids`: how often an example went from right to wrong in training, or kNeverLearned. Empty: no such history.
  std::span<const std::int64_t> forgotten = {};
  /// Of `ids`: difficulty (el2n, grand) that was measured before, over several networks. Empty: the source's is taken.
  std::span<const float> difficulty = {};
  /// ALL ranks, as often on each and with the same answer: whether to stop here. Null: never asked.
  std::function<bool()> stop_requested = {};
  /// ALL ranks: go on from this state of a selection with the same request and the same network; what counts is what
  /// rank 0 gives. Null on ALL ranks: from the start. CheckpointError if it is damaged or of another request.
  const SelectionState* resume_from = nullptr;
};

/// What is known of the sketch that scored the examples.
struct Certificate {
  std::string sketch;  ///< "frequent directions", "exact covariance" or "random projection"
  bool exact = false;  ///< nothing was lost: error_bound is 0
  /// Delta: 0 <= ||A x||^2 - ||S x||^2 <= Delta for every unit vector x. None for a random projection: it has no bound.
  std::optional<double> error_bound;
  std::optional<double> relative_error;  ///< Delta / largest eigenvalue of S^T S
  double largest_eigenvalue = 0.0;
  double squared_norm = 0.0;  ///< ||A||_F^2, the sum of all squared gradient norms
  std::int64_t size = 0;      ///< ell
  std::int64_t rows = 0;      ///< of S
  std::int64_t rows_seen = 0;
  std::int64_t shards = 0;
};

/// Wall-clock seconds, the largest over the ranks.
struct SelectionSeconds {
  double sketch = 0.0, merge = 0.0, score = 0.0, choose = 0.0;
  double total() const { return sketch + merge + score + choose; }
};

/// What others would go by to doubt a label, of all candidates in the order of request.ids, each the lower the more
/// doubtful. Empty where nothing was doubted.
struct PeerScores {
  std::vector<float> small_loss;  ///< minus the cross entropy with the label: log p_y
  /// p_y - t_y less the largest p_j - t_j of another class, t being the thresholds of confident counting
  /// (label_filter.h)
  std::vector<float> confident_learning;
  std::vector<float> gradient_norm;  ///< minus ||g||
};

struct SelectionResult {
  std::string method;
  std::vector<std::int64_t> kept;             ///< ids of the examples to KEEP, ascending
  std::vector<float> weights;                 ///< of `kept`, in the same order, as the method gives them; empty: all 1
  std::string scoring;                        ///< what `scores` are ("entropy", "el2n"); empty where the method has one
  std::vector<float> scores;                  ///< of all candidates, in the order of request.ids; empty: none
  std::vector<std::int64_t> class_histogram;  ///< kept examples per class
  std::vector<double> consensus_strength;     ///< per class (or one): length of the mean of the unit vectors, 0 to 1
  std::optional<Certificate> certificate;     ///< where a sketch scored
  std::vector<std::int64_t> doubtful;     ///< keep: filter or coverage: ids cut off as probably mislabelled, ascending
  std::optional<double> estimated_noise;  ///< keep: filter or coverage, drop: auto: probably wrong / candidates
  PeerScores peers;                       ///< keep: filter or coverage
  std::int64_t degenerate = 0;            ///< examples whose projected gradient is zero or not finite: lowest score
  std::int64_t non_finite = 0;            ///< gradients with values that are not finite, left out of the sketch
  std::string scores_kept;                ///< "cached" or "recomputed"; empty where there was no such choice
  SelectionSeconds seconds;
  std::int64_t bytes_sent = 0;  ///< by all ranks together
  std::vector<std::string> warnings;
};

/// Kept examples per class, and a warning for each class that has candidates but gets nothing.
void describe_classes(const SelectionRequest& request, SelectionResult& result);

}  // namespace sage
