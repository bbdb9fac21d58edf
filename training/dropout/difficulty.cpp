#include "training/dropout/difficulty.h"

#include <numeric>

#include "core/error.h"

namespace sage {

ClassDifficulty::ClassDifficulty(std::span<const std::int64_t> class_counts, double alpha, double epsilon)
    : difficulty_(class_counts.size(), 0.5), alpha_(alpha), epsilon_(epsilon) {
  const auto sum = static_cast<double>(std::accumulate(class_counts.begin(), class_counts.end(), std::int64_t{0}));
  for (const std::int64_t count : class_counts) global_.push_back(static_cast<double>(count) / sum);
}

void ClassDifficulty::update(std::span<const std::int64_t> hard, std::span<const std::int64_t> total) {
  require(hard.size() == difficulty_.size() && total.size() == hard.size(),
          "ClassDifficulty: one count for each class");
  for (std::size_t c = 0; c < difficulty_.size(); ++c) {
    if (total[c] == 0) continue;
    const double measured = static_cast<double>(hard[c]) / static_cast<double>(total[c]);
    difficulty_[c] = (1.0 - alpha_) * difficulty_[c] + alpha_ * measured;
  }
}

std::vector<double> ClassDifficulty::proportions() const {
  std::vector<double> result;
  double sum = 0.0;
  for (std::size_t c = 0; c < difficulty_.size(); ++c) {
    result.push_back(global_[c] * (difficulty_[c] + epsilon_));
    sum += result.back();
  }
  for (double& proportion : result) proportion /= sum;
  return result;
}

}  // namespace sage
