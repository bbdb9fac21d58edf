// Mini-batch coresets: of each random set, as many examples as a batch holds, which stand for the whole set.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// One weighted mini-batch.
struct Coreset {
  std::vector<std::int64_t> ids;  ///< distinct, class by class in the order of choice
  std::vector<float> weights;     ///< mean 1
  bool operator==(const Coreset&) const = default;
};

struct CoresetOptions {
  std::int64_t size = 0;           ///< m
  std::int64_t of_each_class = 0;  ///< examples of a class in a set
  std::int64_t class_count = 0;    ///< C
  std::uint64_t seed = 0;
  bool is_stochastic = false;  ///< stochastic greedy, epsilon 0.1, instead of lazy greedy
  bool as_released = false;    ///< selection.crest.compat
};

/// What a coreset takes of each class: m / C, and one more of m mod C classes that follow each other in a circle. Where
/// they begin moves on with `set`, the number of the set in the run, so that no class is preferred in the long run; the
/// first beginning is drawn from the seed. m may be smaller than C.
std::vector<std::int64_t> coreset_quota(const CoresetOptions& options, std::int64_t set);

/// What facility location says of one set.
struct SetChoice {
  std::vector<std::int64_t> positions;  ///< in the set
  std::vector<std::int64_t> cluster;    ///< examples of its class that each stands for
};

/// Chooses in each class by facility location (selection/facility_location.h) over the distances between rows of
/// `residuals` [of_each_class x C, C], class by class as RemainingExamples draws them. As released, similarities are
/// exp(-distance / C) and ties go to the larger position, and every class gives ceil(m / C).
SetChoice choose_of_set(const at::Tensor& residuals, const CoresetOptions& options, std::int64_t set);

/// ALL ranks, with the same arguments; the same answer on all. `sets` are dealt to the ranks in turn. `ids` (ascending)
/// are the examples of all sets and `residuals` [ids.size(), C] theirs. `first_set`: number of the first set in the
/// run. As released, the choices of all sets are shuffled together before they are cut into batches of m.
std::vector<Coreset> choose_coresets(std::span<const std::vector<std::int64_t>> sets, std::int64_t first_set,
                                     std::span<const std::int64_t> ids, const at::Tensor& residuals,
                                     const CoresetOptions& options, Communicator& communicator);

}  // namespace sage
