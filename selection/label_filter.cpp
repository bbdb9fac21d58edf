#include "selection/label_filter.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "selection/consensus.h"
#include "selection/quota.h"

namespace sage {
namespace {

/// Calls body(i, label, row of C probabilities) for each example.
template <class Body>
void for_each_example(const at::Tensor& probabilities, std::span<const std::int64_t> labels, const Body& body) {
  const at::Tensor values = probabilities.detach().to(at::kCPU, at::kFloat).contiguous();
  require(values.dim() == 2 && values.size(0) == static_cast<std::int64_t>(labels.size()),
          "confident counting: one row of probabilities per label");
  const float* row = values.const_data_ptr<float>();
  for (std::int64_t label : labels) {
    body(label, row);
    row += values.size(1);
  }
}

}  // namespace

ConfidentCounting::ConfidentCounting(std::int64_t class_count)
    : sums_(at::zeros({class_count}, at::kDouble)),
      labelled_(at::zeros({class_count}, at::kDouble)),
      suspects_(at::zeros({3, class_count}, at::kDouble)) {}

void ConfidentCounting::add_threshold(const at::Tensor& probabilities, std::span<const std::int64_t> labels) {
  double* sum = sums_.mutable_data_ptr<double>();
  double* labelled = labelled_.mutable_data_ptr<double>();
  for_each_example(probabilities, labels, [&](std::int64_t label, const float* p) {
    if (!std::isfinite(p[label])) return;  // such an example is degenerate; it may not spoil its class
    sum[label] += p[label];
    labelled[label] += 1.0;
  });
}

void ConfidentCounting::reduce_thresholds(Communicator& communicator) {
  all_reduce_sum_anywhere(communicator, sums_);
  all_reduce_sum_anywhere(communicator, labelled_);
  thresholds_.clear();
  for (std::int64_t c = 0; c < sums_.size(0); ++c) {
    const double count = labelled_.const_data_ptr<double>()[c];
    thresholds_.push_back(count > 0.0 ? sums_.const_data_ptr<double>()[c] / count
                                      : std::numeric_limits<double>::infinity());
  }
}

at::Tensor ConfidentCounting::threshold_sums() const { return at::stack({sums_, labelled_}); }

void ConfidentCounting::add_threshold_sums(const at::Tensor& sums) {
  sums_.add_(sums[0]);
  labelled_.add_(sums[1]);
}

void ConfidentCounting::count(const at::Tensor& probabilities, std::span<const std::int64_t> labels) {
  require(!thresholds_.empty(), "confident counting: thresholds come first");
  double* suspects = suspects_.mutable_data_ptr<double>();
  const auto classes = static_cast<std::int64_t>(thresholds_.size());
  const double chance = 1.0 / static_cast<double>(classes);
  for_each_example(probabilities, labels, [&](std::int64_t label, const float* p) {
    std::int64_t best = -1;
    for (std::size_t j = 0; j < thresholds_.size(); ++j) {
      if (p[j] >= thresholds_[j] && (best < 0 || p[j] > p[best])) best = static_cast<std::int64_t>(j);
    }
    const bool is_confident = best >= 0 && best != label, is_below = p[label] < chance;
    if (is_confident) suspects[label] += 1.0;
    if (is_below) suspects[classes + label] += 1.0;
    if (is_confident && is_below) suspects[2 * classes + label] += 1.0;
  });
}

void ConfidentCounting::reduce_counts(Communicator& communicator) { all_reduce_sum_anywhere(communicator, suspects_); }

SuspectCounts ConfidentCounting::suspects() const {
  const auto of = [&](std::int64_t way) {
    const at::Tensor counts = suspects_[way].to(at::kLong);
    return std::vector<std::int64_t>(counts.const_data_ptr<std::int64_t>(),
                                     counts.const_data_ptr<std::int64_t>() + counts.numel());
  };
  return {of(0), of(1), of(2)};
}

void append_peer_scores(const at::Tensor& probabilities, std::span<const std::int64_t> labels,
                        std::span<const double> thresholds, std::vector<float>& small_loss,
                        std::vector<float>& confident_learning) {
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  for_each_example(probabilities, labels, [&](std::int64_t label, const float* p) {
    const auto own = static_cast<std::size_t>(label);
    if (!std::isfinite(p[own])) {
      small_loss.push_back(kLowest);
      confident_learning.push_back(kLowest);
      return;
    }
    double other = -std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < thresholds.size(); ++j) {
      if (j != own) other = std::max(other, p[j] - thresholds[j]);
    }
    small_loss.push_back(std::max(kLowest, std::log(p[own])));
    // Where no other class has an example there is nothing to compare with.
    confident_learning.push_back(
        static_cast<float>(std::isfinite(other) ? p[own] - thresholds[own] - other : p[own] - thresholds[own]));
  });
}

double estimated_wrong(const SuspectCounts& suspects, std::string_view rule) {
  const auto sum = [](const std::vector<std::int64_t>& counts) {
    return static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  };
  if (rule == "confident") return sum(suspects.confident);
  if (rule == "chance") return sum(suspects.chance);
  return 0.5 * (sum(suspects.confident) + sum(suspects.chance));
}

std::vector<std::int64_t> gated_cut(const SuspectCounts& suspects, std::string_view rule, double gate,
                                    std::int64_t count) {
  const bool is_noisy = estimated_wrong(suspects, rule) >= gate * static_cast<double>(count);
  if (!is_noisy) return std::vector<std::int64_t>(suspects.both.size(), 0);
  if (rule == "confident") return suspects.confident;
  std::vector<std::int64_t> cut = suspects.chance;
  if (rule == "chance") return cut;
  for (std::size_t c = 0; c < cut.size(); ++c) cut[c] += suspects.confident[c] - suspects.both[c];
  return cut;
}

std::vector<std::int64_t> fixed_cut(double drop, std::span<const std::int64_t> class_counts) {
  if (!(drop >= 0.0 && drop < 1.0)) {
    throw ConfigError(fmt::format("selection.filter.drop must be `auto` or at least 0 and below 1 (it is {})", drop));
  }
  std::vector<std::int64_t> cut;
  for (std::int64_t count : class_counts) {
    cut.push_back(static_cast<std::int64_t>(std::floor(drop * static_cast<double>(count) + 0.5)));
  }
  return cut;
}

std::vector<std::int64_t> least_trusted(std::span<const float> trust, std::span<const std::int64_t> labels,
                                        std::span<const std::int64_t> cut) {
  // What is not among the highest: so ties are broken as everywhere else.
  std::vector<std::int64_t> keep = count_classes(labels, static_cast<std::int64_t>(cut.size()));
  for (std::size_t c = 0; c < cut.size(); ++c) keep[c] -= std::min(cut[c], keep[c]);
  const std::vector<std::int64_t> kept = highest_of_each_class(trust, labels, keep);
  std::vector<std::int64_t> rest;
  std::size_t next = 0;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(labels.size()); ++i) {
    if (next < kept.size() && kept[next] == i) {
      ++next;
    } else {
      rest.push_back(i);
    }
  }
  return rest;
}

}  // namespace sage
