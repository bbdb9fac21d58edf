// `keep: filter`: examples that disagree with their class are probably mislabelled. How many of each class to cut off
// is found by confident counting, which ones by their trust (agreement).
//
// Northcutt, Jiang, Chuang: "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021, section 3.1.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// Counts the examples whose label looks wrong. First add_threshold() over all examples, then reduce_thresholds(), then
/// count() over all examples, then reduce_counts(). Probabilities: [n, C], any device.
class ConfidentCounting {
 public:
  explicit ConfidentCounting(std::int64_t class_count);

  void add_threshold(const at::Tensor& probabilities, std::span<const std::int64_t> labels);
  /// ALL ranks. t_j = mean of p_j over the examples labelled j; infinite for a class without examples.
  void reduce_thresholds(Communicator& communicator);
  /// An example is suspect if the argmax over {j: p_j >= t_j} (ties to the lower class) is there and not its label.
  void count(const at::Tensor& probabilities, std::span<const std::int64_t> labels);
  /// ALL ranks.
  void reduce_counts(Communicator& communicator);

  /// What add_threshold() has gathered on this rank: [2, C], float64, CPU. And back, added to what is there.
  at::Tensor threshold_sums() const;
  void add_threshold_sums(const at::Tensor& sums);
  /// In place of add_threshold() and reduce_thresholds().
  void set_thresholds(std::vector<double> thresholds) { thresholds_ = std::move(thresholds); }

  const std::vector<double>& thresholds() const { return thresholds_; }
  /// Suspects by their label.
  std::vector<std::int64_t> suspects() const;

 private:
  at::Tensor sums_, labelled_, suspects_;  // [C], float64, CPU
  std::vector<double> thresholds_;
};

/// Examples of each class to cut, from suspects: none if they are less than `gate` of all `count` examples.
std::vector<std::int64_t> gated_cut(std::vector<std::int64_t> suspects, double gate, std::int64_t count);
/// round(drop x examples of the class). Throws ConfigError if `drop` is not in [0, 1).
std::vector<std::int64_t> fixed_cut(double drop, std::span<const std::int64_t> class_counts);

/// Positions of the cut[c] least trusted examples of each class (ties: the higher position goes), ascending.
std::vector<std::int64_t> least_trusted(std::span<const float> trust, std::span<const std::int64_t> labels,
                                        std::span<const std::int64_t> cut);

}  // namespace sage
