#include "selection/coverage.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/random.h"
#include "selection/facility_location.h"
#include "selection/quota.h"

namespace sage {
namespace {

std::vector<std::int64_t> sizes_of(const std::vector<std::vector<std::int64_t>>& lists) {
  std::vector<std::int64_t> sizes;
  for (const auto& list : lists) sizes.push_back(static_cast<std::int64_t>(list.size()));
  return sizes;
}

constexpr float kTaken = std::numeric_limits<float>::infinity();  // nearer than any cosine: never chosen again

/// The first of the smallest.
std::int64_t lowest_of(const at::Tensor& values) {
  const float* const first = values.const_data_ptr<float>();
  return std::min_element(first, first + values.numel()) - first;
}

std::vector<std::int64_t> farthest_first(const at::Tensor& directions, std::int64_t count) {
  std::vector<std::int64_t> chosen = {lowest_of(at::mv(directions, directions.sum(0)).neg())};
  at::Tensor nearest = at::mv(directions, directions[chosen[0]]);  // cosine to the nearest chosen one
  nearest[chosen[0]] = kTaken;
  while (static_cast<std::int64_t>(chosen.size()) < count) {
    const std::int64_t next = lowest_of(nearest);
    nearest = at::maximum(nearest, at::mv(directions, directions[next]));
    nearest[next] = kTaken;
    chosen.push_back(next);
  }
  return chosen;
}

/// What one rank looks at together.
struct Chunk {
  std::vector<std::int64_t> positions;  // ascending
  std::int64_t quota = 0;
};

std::vector<Chunk> cut_into_chunks(const std::vector<std::vector<std::int64_t>>& members,
                                   const std::vector<std::int64_t>& quota) {
  std::vector<Chunk> chunks;
  for (std::size_t c = 0; c < members.size(); ++c) {
    const auto count = static_cast<std::int64_t>(members[c].size());
    const auto parts = static_cast<std::size_t>((count + kCoverageChunk - 1) / kCoverageChunk);
    std::vector<std::vector<std::int64_t>> dealt(parts);
    for (std::size_t i = 0; i < members[c].size(); ++i) dealt[i % parts].push_back(members[c][i]);
    const std::vector<std::int64_t> sizes = sizes_of(dealt), shares = split_by_weight(quota[c], sizes, sizes);
    for (std::size_t part = 0; part < parts; ++part) {
      if (shares[part] > 0) chunks.push_back({std::move(dealt[part]), shares[part]});
    }
  }
  return chunks;
}

/// Positions of `chunk` that `rank` holds: [first, last) among them.
std::pair<std::size_t, std::size_t> part_of(const Chunk& chunk, const ShardPlan& plan, int rank) {
  const auto [first, last] = plan.positions_of(rank);
  const auto& positions = chunk.positions;
  return {std::lower_bound(positions.begin(), positions.end(), first) - positions.begin(),
          std::lower_bound(positions.begin(), positions.end(), last) - positions.begin()};
}

}  // namespace

std::vector<std::int64_t> draw_stratified(std::span<const float> scores, std::span<const std::int64_t> labels,
                                          std::int64_t class_count, std::span<const std::int64_t> excluded,
                                          std::int64_t total, std::uint64_t seed, std::uint64_t round) {
  std::vector<std::vector<std::int64_t>> members = members_of_classes(labels, class_count, excluded);
  const std::vector<std::int64_t> quota = class_quota(total, sizes_of(members));
  std::vector<std::int64_t> chosen;
  for (std::size_t c = 0; c < members.size(); ++c) {
    std::vector<std::int64_t>& order = members[c];
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
    });
    const auto count = static_cast<std::int64_t>(order.size());
    RandomStream stream(seed, "stratified coverage", round, static_cast<std::uint32_t>(c));
    for (std::int64_t stratum = 0; stratum < quota[c]; ++stratum) {
      const std::int64_t first = stratum * count / quota[c], last = (stratum + 1) * count / quota[c];
      const auto drawn = static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(last - first)));
      chosen.push_back(order[static_cast<std::size_t>(first + drawn)]);
    }
  }
  require(static_cast<std::int64_t>(chosen.size()) == total, "draw_stratified: fewer examples than are wanted");
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<std::int64_t> cover(std::string_view method, const at::Tensor& directions, std::int64_t count) {
  const at::NoGradGuard no_grad;
  require(count >= 1 && count <= directions.size(0), "cover: as many as there are at most");
  if (method == "farthest_first") return farthest_first(directions.contiguous(), count);
  require(method == "facility_location", "cover: there is no such method");
  return lazy_greedy(at::mm(directions, directions.t()).add_(1.0).clamp_min_(0.0), count).chosen;
}

std::vector<std::int64_t> draw_covering(std::string_view method, ProjectedGradients& gradients, const ShardPlan& plan,
                                        std::span<const std::int64_t> labels, std::int64_t class_count,
                                        std::span<const std::int64_t> excluded, std::int64_t total,
                                        Communicator& communicator) {
  const std::vector<std::vector<std::int64_t>> members = members_of_classes(labels, class_count, excluded);
  const std::vector<Chunk> chunks = cut_into_chunks(members, class_quota(total, sizes_of(members)));
  const int rank = communicator.rank();
  const auto ranks = static_cast<std::size_t>(communicator.size()), me = static_cast<std::size_t>(rank);
  const std::int64_t start = plan.positions_of(rank).first;

  std::vector<std::int64_t> mine;  // chosen from this rank's chunks
  // ALL ranks: chunk `first + r` goes to rank r.
  for (std::size_t first = 0; first < chunks.size(); first += ranks) {
    std::vector<at::Tensor> to(ranks), from(ranks);
    for (std::size_t r = 0; r < ranks && first + r < chunks.size(); ++r) {
      const Chunk& chunk = chunks[first + r];
      const auto [begin, end] = part_of(chunk, plan, rank);
      if (begin == end) continue;
      std::vector<std::int64_t> offsets;
      for (std::size_t i = begin; i < end; ++i) offsets.push_back(chunk.positions[i] - start);
      to[r] = gradients.directions_at(offsets).to(communicator.device());
    }
    const bool has_chunk = first + me < chunks.size();
    for (std::size_t r = 0; r < ranks && has_chunk; ++r) {
      const auto [begin, end] = part_of(chunks[first + me], plan, static_cast<int>(r));
      if (begin == end) continue;
      from[r] = at::empty({static_cast<std::int64_t>(end - begin), gradients.rows()},
                          at::TensorOptions(communicator.device()).dtype(at::kFloat));
    }
    communicator.exchange_all(to, from);
    if (!has_chunk) continue;
    std::vector<at::Tensor> parts;  // ranks hold runs of positions in rank order
    for (const at::Tensor& part : from) {
      if (part.defined()) parts.push_back(part.cpu());
    }
    const Chunk& chunk = chunks[first + me];
    for (const std::int64_t i : cover(method, at::cat(parts), chunk.quota)) {
      mine.push_back(chunk.positions[static_cast<std::size_t>(i)]);
    }
  }
  at::Tensor found = at::empty({static_cast<std::int64_t>(mine.size())}, at::kLong);
  std::copy(mine.begin(), mine.end(), found.mutable_data_ptr<std::int64_t>());
  const at::Tensor all = communicator.all_gather_rows(found.to(communicator.device())).cpu();
  std::vector<std::int64_t> chosen(all.const_data_ptr<std::int64_t>(),
                                   all.const_data_ptr<std::int64_t>() + all.numel());
  require(static_cast<std::int64_t>(chosen.size()) == total, "draw_covering: fewer examples than are wanted");
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace sage
