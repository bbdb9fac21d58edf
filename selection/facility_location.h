// Facility location: few points that stand for many. The function is monotone and submodular, so that choosing greedily
// reaches at least 1 - 1/e of the best value (Nemhauser, Wolsey and Fisher, "An analysis of approximations for
// maximizing submodular set functions", 1978).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/random.h"

namespace sage {

struct FacilityLocationChoice {
  std::vector<std::int64_t> chosen;   ///< positions, in the order of choice
  std::vector<std::int64_t> cluster;  ///< for each chosen: how many points it represents (ties to the earlier chosen)
  double value = 0.0;                 ///< of the function: sum over points of the largest similarity to a chosen one
};

/// Greedy maximisation of F(S) = sum_i max_{j in S} s_ij over sets of `k` points, ties to the lower position. Lazy
/// (Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978): a gain is computed again
/// only where an older, larger one would win, and the choice is that of the plain greedy algorithm to the last bit.
///
/// `similarity`: float32 [n, n], CPU, contiguous, finite and >= 0; row j holds how similar candidate j is to each
/// point. k in [1, n]. Scratch: O(n). Throws TrainingError where a similarity is not finite.
FacilityLocationChoice lazy_greedy(const at::Tensor& similarity, std::int64_t k);

/// The same among ceil(n / k ln(1 / epsilon)) candidates drawn from `stream` at each step, without replacement: at
/// least 1 - 1/e - epsilon of the best value in expectation, with n ln(1 / epsilon) gains in all (Mirzasoleiman et al.,
/// "Lazier than lazy greedy", AAAI 2015). epsilon in (0, 1).
FacilityLocationChoice stochastic_greedy(const at::Tensor& similarity, std::int64_t k, double epsilon,
                                         RandomStream& stream);

/// max(D) - D for the Euclidean distances D between the rows of `points` [n, d], any floating-point type, on the CPU.
/// Differences are taken before squares: equal rows have distance 0. Takes n^2 d time and n^2 memory.
at::Tensor similarity_of(const at::Tensor& points);

}  // namespace sage
