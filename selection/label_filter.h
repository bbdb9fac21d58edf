// `keep: filter`: examples that disagree with their class are probably mislabelled. How many of each class to cut off
// is found by counting doubtful labels, which ones by their trust (agreement).
//
// Two ways to count. Confident counting takes a label for suspect if the network is confident of another class; it
// counts too many where the network has learned little, too few where it has learned long, and sees labels that are
// confused in pairs. Counting by chance (ours) takes one for suspect if the network gives it less than 1 / classes; it
// hardly depends on how long the network has learned, but does not see pairs.
//
// Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.1.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// Suspects by their label.
struct SuspectCounts {
  std::vector<std::int64_t> confident;  ///< the argmax over {j: p_j >= t_j} (ties to the lower class) is another class
  std::vector<std::int64_t> chance;     ///< p_y < 1 / classes
  std::vector<std::int64_t> both;
};

/// Counts the examples whose label looks wrong. First add_threshold() over all examples, then reduce_thresholds(), then
/// count() over all examples, then reduce_counts(). Probabilities: [n, C], any device.
class ConfidentCounting {
 public:
  explicit ConfidentCounting(std::int64_t class_count);

  void add_threshold(const at::Tensor& probabilities, std::span<const std::int64_t> labels);
  /// ALL ranks. t_j = mean of p_j over the examples labelled j; infinite for a class without examples.
  void reduce_thresholds(Communicator& communicator);
  void count(const at::Tensor& probabilities, std::span<const std::int64_t> labels);
  /// ALL ranks.
  void reduce_counts(Communicator& communicator);

  /// What add_threshold() has gathered on this rank: [2, C], float64, CPU. And back, added to what is there.
  at::Tensor threshold_sums() const;
  void add_threshold_sums(const at::Tensor& sums);
  /// In place of add_threshold() and reduce_thresholds().
  void set_thresholds(std::vector<double> thresholds) { thresholds_ = std::move(thresholds); }

  const std::vector<double>& thresholds() const { return thresholds_; }
  SuspectCounts suspects() const;

 private:
  at::Tensor sums_, labelled_;  // [C], float64, CPU
  at::Tensor suspects_;         // [3, C], float64, CPU: confident, chance, both
  std::vector<double> thresholds_;
};

/// Appends log p_y of each example, and p_y - t_y less the largest p_j - t_j of another class. A probability that is
/// not finite gives what is lower than all else.
void append_peer_scores(const at::Tensor& probabilities, std::span<const std::int64_t> labels,
                        std::span<const double> thresholds, std::vector<float>& small_loss,
                        std::vector<float>& confident_learning);

/// How many labels are probably wrong, by `rule` (selection.filter.count): the suspects by chance, by confident
/// counting, or (either) the mean of the two counts.
double estimated_wrong(const SuspectCounts& suspects, std::string_view rule);

/// Examples of each class to cut: the suspects by `rule` (with `either` those in either way), or none if
/// estimated_wrong() is less than `gate` of all `count` examples. Where labels are wrong, `either` cuts off more than
/// are wrong: what is left is the cleaner.
std::vector<std::int64_t> gated_cut(const SuspectCounts& suspects, std::string_view rule, double gate,
                                    std::int64_t count);
/// round(drop x examples of the class). Throws ConfigError if `drop` is not in [0, 1).
std::vector<std::int64_t> fixed_cut(double drop, std::span<const std::int64_t> class_counts);

/// Positions of the cut[c] least trusted examples of each class (ties: the higher position goes), ascending.
std::vector<std::int64_t> least_trusted(std::span<const float> trust, std::span<const std::int64_t> labels,
                                        std::span<const std::int64_t> cut);

}  // namespace sage
