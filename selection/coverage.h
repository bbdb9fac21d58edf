// `keep: coverage`: what is drawn of each class after the filter stands for the whole of it, rather than being any.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "distributed/communicator.h"
#include "distributed/shard_plan.h"
#include "selection/projected_gradients.h"

namespace sage {

/// Class-balanced positions of `total` examples, none of them in `excluded` (ascending): the examples of a class, by
/// descending score (ties to the lower position), are cut into as many runs of equal length as the class has a quota,
/// and one of each run is drawn. Ascending; the same for the same arguments.
std::vector<std::int64_t> draw_stratified(std::span<const float> scores, std::span<const std::int64_t> labels,
                                          std::int64_t class_count, std::span<const std::int64_t> excluded,
                                          std::int64_t total, std::uint64_t seed, std::uint64_t round);

/// Examples of a class that are looked at together: a chunk takes 16 MiB for its similarities.
constexpr std::int64_t kCoverageChunk = 2048;

/// ALL ranks: class-balanced positions of `total` examples, none of them in `excluded` (ascending), that cover the
/// directions z of their class. A class of more than kCoverageChunk examples is dealt out to chunks in turn, each with
/// its share of the quota; each chunk is covered by one rank. `method`:
///   farthest_first     the one nearest to all, then always the one farthest from those chosen (Gonzalez: "Clustering
///   to
///                      minimize the maximum intercluster distance", 1985);
///   facility_location  greedy maximisation of the sum over all of 1 + the cosine to the nearest chosen one.
/// Ascending, the same on every rank. Memory: the directions and similarities of one chunk; sends each z once.
std::vector<std::int64_t> draw_covering(std::string_view method, ProjectedGradients& gradients, const ShardPlan& plan,
                                        std::span<const std::int64_t> labels, std::int64_t class_count,
                                        std::span<const std::int64_t> excluded, std::int64_t total,
                                        Communicator& communicator);

/// Positions of `count` rows of `directions` [n, r] (unit vectors or zero) by one of these methods. Local.
std::vector<std::int64_t> cover(std::string_view method, const at::Tensor& directions, std::int64_t count);

}  // namespace sage
