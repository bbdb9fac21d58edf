// Several directions for each class: what a class consists of may pull in more than one direction. Agreement is then
// with the nearest (ours; with one direction it is the consensus of consensus.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"
#include "distributed/communicator.h"
#include "selection/consensus.h"

namespace sage {

/// Walks of k-means at most; most of what it gains comes in the first few.
constexpr std::int64_t kClusterWalks = 10;
/// Examples of each group that the first directions are chosen from, for each direction.
constexpr std::int64_t kClusterSample = 8;

/// Spherical k-means (Dhillon and Modha: "Concept decompositions for large sparse text data using clustering", Machine
/// Learning 42, 2001) within each group of unit vectors. Sums are float64, on the CPU. Memory: groups x clusters x r.
class ClusterDirections {
 public:
  ClusterDirections(std::int64_t group_count, std::int64_t clusters, std::int64_t rows);

  /// The first directions, by k-means++ (Arthur and Vassilvitskii, 2007) with squared distances 2 - 2 cosine among a
  /// sample: unit or zero vectors [n, r] (float32, CPU) of groups `groups` [n]. Zero vectors are passed over; a group
  /// with fewer distinct ones gets fewer directions. `round` and `seed` fix the draws. Local, the same on every rank
  /// that is given the same.
  void begin(const at::Tensor& sample, std::span<const std::int64_t> groups, std::uint64_t seed, std::uint64_t round);

  /// Adds unit vectors [n, r] to the nearest direction of their group (ties to the first). Local.
  void add(const UnitVectors& vectors, std::span<const std::int64_t> groups);
  /// ALL ranks: each direction becomes the normalised sum of what was added, or stays where nothing was. Returns
  /// whether any moved by more than rounding; the same on every rank.
  bool move(Communicator& communicator);

  /// Cosine to the nearest direction of the group; `lowest` for degenerate examples and groups without directions.
  std::vector<float> agreement(const UnitVectors& vectors, std::span<const std::int64_t> groups, float lowest) const;
  /// Mean of that over what was added before the last move(): 1 where all vectors lie on a direction. Per group.
  const std::vector<double>& strength() const { return strength_; }
  /// [groups, clusters, r], float64, CPU: unit vectors, or zero where a group has fewer directions.
  const at::Tensor& directions() const { return directions_; }
  /// Vectors of each direction at the last move(): [groups, clusters], float64, CPU.
  const at::Tensor& counts() const { return counts_; }

 private:
  /// Cosines [n, clusters] to the directions of the group, -2 where there is none; float64, CPU.
  at::Tensor cosines(const at::Tensor& vectors, std::span<const std::int64_t> groups) const;

  at::Tensor directions_;      // [groups, clusters, r]
  at::Tensor sums_;            // the same
  at::Tensor counts_, tally_;  // [groups, clusters]: of the last move, and since
  at::Tensor cosine_sums_;     // [groups]
  std::vector<double> strength_;
};

}  // namespace sage
