#include "selection/facility_location.h"

#include <ATen/ops/cdist.h>
#include <ATen/ops/max.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <queue>
#include <utility>

#include "core/error.h"

namespace sage {
namespace {

typedef float Vector __attribute__((vector_size(16), aligned(4), may_alias));
constexpr std::int64_t lanes = 4, vectors = 4;

/// What the chosen points give so far.
class Coverage {
 public:
  Coverage(const at::Tensor& similarity, std::int64_t k) : count_(similarity.dim() == 2 ? similarity.size(0) : 0) {
    require(similarity.dim() == 2 && similarity.size(1) == count_ && similarity.scalar_type() == at::kFloat &&
                similarity.is_cpu() && similarity.is_contiguous(),
            "facility location takes similarities as a contiguous float32 [n, n] on the CPU");
    require(k >= 1 && k <= count_, "facility location chooses at least one point, and not more than there are");
    rows_ = similarity.const_data_ptr<float>();
    best_.assign(static_cast<std::size_t>(count_), 0.0f);
    owner_.assign(static_cast<std::size_t>(count_), 0);
  }

  std::int64_t count() const { return count_; }

  /// What `candidate` would add. The additions have one fixed order, in which no rounded sum grows when its terms
  /// shrink: gains never grow from step to step, as those of exact arithmetic.
  float gain(std::int64_t candidate) const {
    const float* row = rows_ + candidate * count_;
    const float* best = best_.data();
    Vector sums[vectors] = {};
    std::int64_t i = 0;
    for (; i + lanes * vectors <= count_; i += lanes * vectors) {
      for (std::int64_t v = 0; v < vectors; ++v) {
        const Vector more = reinterpret_cast<const Vector*>(row + i + v * lanes)[0] -
                            reinterpret_cast<const Vector*>(best + i + v * lanes)[0];
        sums[v] += more > 0.0f ? more : Vector{};
      }
    }
    float rest = 0.0f;
    for (; i < count_; ++i) rest += std::max(row[i] - best[i], 0.0f);
    const Vector sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + rest;
  }

  void choose(std::int64_t candidate) {
    const float* row = rows_ + candidate * count_;
    const auto number = static_cast<std::int32_t>(chosen_.size());
    for (std::int64_t i = 0; i < count_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!(row[i] > best_[at])) continue;
      best_[at] = row[i];
      owner_[at] = number;
    }
    chosen_.push_back(candidate);
  }

  FacilityLocationChoice result() && {
    FacilityLocationChoice choice;
    choice.cluster.assign(chosen_.size(), 0);
    for (const std::int32_t owner : owner_) ++choice.cluster[static_cast<std::size_t>(owner)];
    for (const float best : best_) choice.value += static_cast<double>(best);
    choice.chosen = std::move(chosen_);
    return choice;
  }

  void check_finite() const {
    Vector zeros[vectors] = {};  // NaN as soon as one value is not finite
    float nothing = 0.0f;
    std::int64_t i = 0;
    for (; i + lanes * vectors <= count_ * count_; i += lanes * vectors) {
      for (std::int64_t v = 0; v < vectors; ++v) {
        zeros[v] += reinterpret_cast<const Vector*>(rows_ + i + v * lanes)[0] * 0.0f;
      }
    }
    for (; i < count_ * count_; ++i) nothing += rows_[i] * 0.0f;
    for (const Vector& zero : zeros) nothing += (zero[0] + zero[1]) + (zero[2] + zero[3]);
    if (nothing == 0.0f) return;
    throw TrainingError(
        "facility location: a similarity is not finite: what the network makes of the examples has left the range of "
        "numbers; lower training.lr");
  }

 private:
  std::int64_t count_;
  const float* rows_ = nullptr;
  std::vector<float> best_;          // of each point: the largest similarity to a chosen one
  std::vector<std::int32_t> owner_;  // of each point: which one that is
  std::vector<std::int64_t> chosen_;
};

/// A gain as it was when so many points were chosen.
struct Bound {
  float gain;
  std::int64_t candidate, chosen;
  /// The queue's top is the largest gain, of the lowest candidate.
  bool operator<(const Bound& other) const {
    return gain != other.gain ? gain < other.gain : candidate > other.candidate;
  }
};

}  // namespace

FacilityLocationChoice lazy_greedy(const at::Tensor& similarity, std::int64_t k) {
  Coverage coverage(similarity, k);
  coverage.check_finite();
  std::vector<Bound> gains;
  gains.reserve(static_cast<std::size_t>(coverage.count()));
  for (std::int64_t j = 0; j < coverage.count(); ++j) gains.push_back({coverage.gain(j), j, 0});
  std::priority_queue<Bound> queue({}, std::move(gains));
  for (std::int64_t chosen = 0; chosen < k;) {
    Bound top = queue.top();
    queue.pop();
    if (top.chosen == chosen) {
      coverage.choose(top.candidate);
      ++chosen;
    } else {
      queue.push({coverage.gain(top.candidate), top.candidate, chosen});
    }
  }
  return std::move(coverage).result();
}

FacilityLocationChoice stochastic_greedy(const at::Tensor& similarity, std::int64_t k, double epsilon,
                                         RandomStream& stream) {
  require(epsilon > 0.0 && epsilon < 1.0, "stochastic greedy: epsilon must lie between 0 and 1");
  Coverage coverage(similarity, k);
  coverage.check_finite();
  const double wanted =
      std::ceil(static_cast<double>(coverage.count()) / static_cast<double>(k) * std::log(1.0 / epsilon));
  std::vector<std::int64_t> left(static_cast<std::size_t>(coverage.count()));
  std::iota(left.begin(), left.end(), std::int64_t{0});
  for (std::int64_t chosen = 0; chosen < k; ++chosen) {
    const auto drawn = static_cast<std::size_t>(std::min(wanted, static_cast<double>(left.size())));
    std::size_t best = 0;
    float best_gain = -1.0f;
    for (std::size_t i = 0; i < drawn; ++i) {
      std::swap(left[i], left[i + stream.below(left.size() - i)]);
      const float gain = coverage.gain(left[i]);
      if (gain < best_gain || (gain == best_gain && left[i] > left[best])) continue;
      best_gain = gain;
      best = i;
    }
    coverage.choose(left[best]);
    left[best] = left.back();
    left.pop_back();
  }
  return std::move(coverage).result();
}

at::Tensor similarity_of(const at::Tensor& points) {
  require(points.dim() == 2 && points.size(0) >= 1 && points.is_cpu(), "similarity_of takes points [n, d] on the CPU");
  constexpr std::int64_t without_products = 2;  // |x|^2 + |y|^2 - 2 x.y would cancel for points close together
  at::Tensor distance = at::cdist(points.to(at::kFloat), points.to(at::kFloat), 2.0, without_products);
  const at::Tensor largest = distance.max();
  return distance.neg_().add_(largest);
}

}  // namespace sage
