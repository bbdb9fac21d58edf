#include "selection/clusters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace sage {
namespace {

constexpr double kNoDirection = -2.0;  // below every cosine
constexpr double kStandsStill = 1e-9;  // squared: directions that move less are where they belong
constexpr double kSame = 1e-6;         // squared distance of float32 unit vectors that differ by rounding

at::Tensor as_index(std::span<const std::int64_t> values) {
  return at::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kLong);
}

/// The first of the largest.
std::int64_t nearest_of(const double* cosines, std::int64_t count) {
  return std::max_element(cosines, cosines + count) - cosines;
}

}  // namespace

ClusterDirections::ClusterDirections(std::int64_t group_count, std::int64_t clusters, std::int64_t rows)
    : directions_(at::zeros({group_count, clusters, rows}, at::kDouble)),
      sums_(at::zeros_like(directions_)),
      counts_(at::zeros({group_count, clusters}, at::kDouble)),
      tally_(at::zeros_like(counts_)),
      cosine_sums_(at::zeros({group_count}, at::kDouble)) {}

void ClusterDirections::begin(const at::Tensor& sample, std::span<const std::int64_t> groups, std::uint64_t seed,
                              std::uint64_t round) {
  const at::NoGradGuard no_grad;
  require(sample.size(0) == static_cast<std::int64_t>(groups.size()) && sample.size(1) == directions_.size(2),
          "ClusterDirections::begin: one group per vector, one column per row of the sketch");
  const at::Tensor vectors = sample.to(at::kDouble).contiguous();
  const std::int64_t rows = vectors.size(1);
  const double* const values = vectors.const_data_ptr<double>();
  const auto dot = [&](std::int64_t i, std::int64_t j) {
    const double *a = values + i * rows, *b = values + j * rows;
    double sum = 0.0;
    for (std::int64_t c = 0; c < rows; ++c) sum += a[c] * b[c];
    return sum;
  };
  for (std::int64_t group = 0; group < directions_.size(0); ++group) {
    std::vector<std::int64_t> members;
    for (std::int64_t i = 0; i < vectors.size(0); ++i) {
      if (groups[static_cast<std::size_t>(i)] == group && dot(i, i) > 0.5) members.push_back(i);
    }
    RandomStream stream(seed, "cluster directions", round, static_cast<std::uint32_t>(group));
    std::vector<double> distance(members.size(), 1.0);  // the first one is drawn uniformly
    for (std::int64_t cluster = 0; cluster < directions_.size(1); ++cluster) {
      double total = 0.0;
      for (const double d : distance) total += d;
      if (!(total > 0.0)) break;  // no vector is left that is not a direction already
      double left = stream.uniform() * total;
      std::size_t drawn = 0;
      while (drawn + 1 < members.size() && (left -= distance[drawn]) >= 0.0) ++drawn;
      directions_[group][cluster].copy_(vectors[members[drawn]]);
      for (std::size_t i = 0; i < members.size(); ++i) {
        double squared = 2.0 - 2.0 * dot(members[i], members[drawn]);
        if (squared < kSame) squared = 0.0;
        distance[i] = cluster == 0 ? squared : std::min(distance[i], squared);
      }
    }
  }
}

at::Tensor ClusterDirections::cosines(const at::Tensor& vectors, std::span<const std::int64_t> groups) const {
  const at::Tensor of_group = directions_.index_select(0, as_index(groups));  // [n, clusters, r]
  at::Tensor cosines = at::bmm(of_group, vectors.cpu().to(at::kDouble).unsqueeze(2)).squeeze(2).contiguous();
  return cosines.masked_fill_(of_group.square().sum(2) < 0.5, kNoDirection);
}

void ClusterDirections::add(const UnitVectors& vectors, std::span<const std::int64_t> groups) {
  const at::NoGradGuard no_grad;
  const at::Tensor near = cosines(vectors.directions, groups);
  const at::Tensor wide = vectors.directions.cpu().to(at::kDouble).contiguous();
  const std::int64_t rows = wide.size(1), clusters = directions_.size(1);
  double* const sums = sums_.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < wide.size(0); ++i) {
    const auto at_i = static_cast<std::size_t>(i);
    const double* const cosine = near.const_data_ptr<double>() + i * clusters;
    const std::int64_t cluster = nearest_of(cosine, clusters);
    if (vectors.degenerate[at_i] || cosine[cluster] == kNoDirection) continue;
    const std::int64_t place = groups[at_i] * clusters + cluster;
    tally_.mutable_data_ptr<double>()[place] += 1.0;
    cosine_sums_.mutable_data_ptr<double>()[groups[at_i]] += cosine[cluster];
    const double* const vector = wide.const_data_ptr<double>() + i * rows;
    for (std::int64_t c = 0; c < rows; ++c) sums[place * rows + c] += vector[c];
  }
}

bool ClusterDirections::move(Communicator& communicator) {
  const at::NoGradGuard no_grad;
  for (const at::Tensor& sum : {sums_, tally_, cosine_sums_}) all_reduce_sum_anywhere(communicator, sum);
  const at::Tensor norms = sums_.square().sum(2).sqrt();
  double farthest = 0.0;
  for (std::int64_t group = 0; group < norms.size(0); ++group) {
    for (std::int64_t cluster = 0; cluster < norms.size(1); ++cluster) {
      const double norm = norms[group][cluster].item<double>();
      if (!(norm > 0.0)) continue;
      const at::Tensor next = sums_[group][cluster] / norm;
      farthest = std::max(farthest, (next - directions_[group][cluster]).square().sum().item<double>());
      directions_[group][cluster].copy_(next);
    }
  }
  const at::Tensor members = tally_.sum(1);
  strength_.clear();
  for (std::int64_t group = 0; group < members.size(0); ++group) {
    strength_.push_back(cosine_sums_[group].item<double>() / std::max(members[group].item<double>(), 1.0));
  }
  counts_.copy_(tally_);
  for (at::Tensor sum : {sums_, tally_, cosine_sums_}) sum.zero_();
  return farthest > kStandsStill;
}

std::vector<float> ClusterDirections::agreement(const UnitVectors& vectors, std::span<const std::int64_t> groups,
                                                float lowest) const {
  const at::NoGradGuard no_grad;
  const at::Tensor near = cosines(vectors.directions, groups);
  std::vector<float> scores;
  for (std::int64_t i = 0; i < near.size(0); ++i) {
    const double* const cosine = near.const_data_ptr<double>() + i * near.size(1);
    const double best = cosine[nearest_of(cosine, near.size(1))];
    const bool is_usable = !vectors.degenerate[static_cast<std::size_t>(i)] && best != kNoDirection;
    scores.push_back(is_usable ? static_cast<float>(best) : lowest);
  }
  return scores;
}

}  // namespace sage
