// How hard each class is for the network: the state of adaptive proportionality dropout (`apd`).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace sage {

/// Starts at a difficulty of 1/2 for every class. Plain arithmetic on counts over ALL ranks, so that every rank holds
/// the same bits.
class ClassDifficulty {
 public:
  /// `class_counts`: examples of each class that may be trained on; all above 0. alpha in (0, 1], epsilon > 0.
  ClassDifficulty(std::span<const std::int64_t> class_counts, double alpha, double epsilon);

  /// At the end of an epoch, with what was scored in it: difficulty[c] = (1 - alpha) difficulty[c] + alpha hard[c] /
  /// total[c]. A class that was not seen keeps its difficulty.
  void update(std::span<const std::int64_t> hard, std::span<const std::int64_t> total);

  const std::vector<double>& difficulty() const { return difficulty_; }
  void set_difficulty(std::vector<double> difficulty) { difficulty_ = std::move(difficulty); }
  /// global proportion[c] (difficulty[c] + epsilon), scaled to a sum of 1.
  std::vector<double> proportions() const;

 private:
  std::vector<double> global_, difficulty_;
  double alpha_, epsilon_;
};

}  // namespace sage
