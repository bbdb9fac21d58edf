#include "distributed/sketch_all_reduce.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/frequent_directions.h"
#include "support/matrices.h"
#include "support/mpi.h"

namespace sage {
namespace {

using testing::largest_eigenvalue;
using testing::promised_error;
using testing::second_moment;
using testing::smallest_eigenvalue;

FrequentDirectionsOptions options(std::int64_t dimension, std::int64_t size, at::ScalarType type) {
  FrequentDirectionsOptions result;
  result.dimension = dimension;
  result.size = size;
  result.type = type;
  return result;
}

/// What rank `rank` has seen: every rank can compute it for every other.
at::Tensor rows_of(int rank, std::int64_t count, std::int64_t dimension, at::ScalarType type) {
  return testing::decaying_matrix(count, dimension, std::min(count, dimension), 0.95, 0.1,
                                  100 + 10 * static_cast<std::uint64_t>(rank))
      .to(type);
}

SketchState sketch_of(const at::Tensor& rows, const FrequentDirectionsOptions& with) {
  FrequentDirections sketch(with);
  if (rows.size(0) > 0) sketch.update(rows);
  return sketch.state();
}

/// The binary tree over ranks, in one process.
SketchState tree_oracle(std::vector<SketchState> states) {
  const std::size_t leaves = std::bit_floor(states.size());
  for (std::size_t i = leaves; i < states.size(); ++i) states[i - leaves] = merge_states(states[i - leaves], states[i]);
  for (std::size_t step = 1; step < leaves; step *= 2) {
    for (std::size_t i = 0; i < leaves; i += 2 * step) states[i] = merge_states(states[i], states[i + step]);
  }
  return states[0];
}

std::string bytes_of(const SketchState& state) {
  const at::Tensor rows = state.rows.contiguous(), eigenvalues = state.eigenvalues.contiguous();
  std::string bytes(static_cast<const char*>(rows.const_data_ptr()), rows.nbytes());
  bytes.append(static_cast<const char*>(eigenvalues.const_data_ptr()), eigenvalues.nbytes());
  for (const double value : {state.error_bound, state.squared_norm, static_cast<double>(state.rows_seen),
                             static_cast<double>(state.rule.size), static_cast<double>(state.smallest_size)}) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

void expect_same_bytes_everywhere(const SketchState& state) {
  const std::vector<std::string> all = world().all_gather_strings(bytes_of(state));
  for (const std::string& bytes : all) EXPECT_TRUE(bytes == all[0]) << "ranks ended with different sketches";
}

void expect_equal_moments(const SketchState& a, const SketchState& b, double tolerance) {
  EXPECT_EQ(a.row_count(), b.row_count());
  const at::Tensor difference = second_moment(a.rows) - second_moment(b.rows);
  const double scale = std::max(b.largest_eigenvalue(), 1e-300);
  EXPECT_LE(difference.abs().max().item<double>(), tolerance * scale);
  EXPECT_NEAR(a.error_bound, b.error_bound, tolerance * scale);
  EXPECT_NEAR(a.squared_norm, b.squared_norm, 1e-9 * b.squared_norm);
  EXPECT_EQ(a.rows_seen, b.rows_seen);
  EXPECT_EQ(a.rule.size, b.rule.size);
  EXPECT_EQ(a.smallest_size, b.smallest_size);
}

struct Case {
  std::int64_t dimension, size;
  std::vector<std::int64_t> rows;  // of rank r: rows[r % rows.size()]
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {64, 8, {100}},          // divisible
      {61, 8, {100, 40}},      // odd dimension
      {67, 16, {90, 5, 200}},  // some with fewer rows than the sketch holds
      {3, 8, {20}},            // fewer columns than ranks, lossless
      {2, 2, {20, 9}},         // the same, and the smallest size
      {1, 4, {3}},             // some ranks have no column at all
      {40, 8, {0, 50}},        // every other rank empty
      {40, 8, {50, 0, 0, 0}},  // all but one empty
      {40, 8, {0, 0, 0, 30}},
      {40, 8, {0}},  // nothing at all
  };
  return all;
}

TEST(SketchAllReduce, IsTheTreeMergeOnEveryRank) {
  const int ranks = world().size(), rank = world().rank();
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const Case& c : cases()) {
      const FrequentDirectionsOptions with = options(c.dimension, c.size, type);
      std::vector<SketchState> states;
      std::vector<at::Tensor> rows;
      for (int r = 0; r < ranks; ++r) {
        rows.push_back(rows_of(r, c.rows[static_cast<std::size_t>(r) % c.rows.size()], c.dimension, type));
        states.push_back(sketch_of(rows.back(), with));
      }
      SCOPED_TRACE(fmt::format("D {}, ell {}, type {}", c.dimension, c.size, type == at::kFloat ? "float" : "double"));
      const SketchState merged = sketch_all_reduce(states[static_cast<std::size_t>(rank)], world());
      expect_same_bytes_everywhere(merged);
      expect_equal_moments(merged, tree_oracle(states), type == at::kFloat ? 1e-5 : 1e-13);

      const at::Tensor all = at::cat(rows);
      if (all.size(0) == 0) continue;
      const at::Tensor missing = second_moment(all) - second_moment(merged.rows);
      const double tolerance = (type == at::kFloat ? 1e-5 : 1e-12) * largest_eigenvalue(second_moment(all));
      EXPECT_GE(smallest_eigenvalue(missing), -tolerance);
      EXPECT_LE(largest_eigenvalue(missing), merged.error_bound + tolerance);
      EXPECT_LE(largest_eigenvalue(missing), promised_error(all, c.size) + tolerance);
    }
  }
}

TEST(SketchAllReduce, SendsWhatTheFormulaSays) {
  const int ranks = world().size(), rank = world().rank();
  const int tree = static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks)));
  const std::int64_t dimension = 256, size = 9;  // D divisible by every p' here; every sketch is full
  const SketchState local = sketch_of(rows_of(rank, 300, dimension, at::kFloat), options(dimension, size, at::kFloat));
  const std::int64_t whole = (size - 1) * dimension * 4;
  world().reset_traffic();
  SketchTraffic traffic;
  const SketchState merged = sketch_all_reduce(local, world(), &traffic);
  const std::int64_t sent = world().traffic().bytes_sent;
  EXPECT_EQ(merged.row_count(), size - 1);
  const std::int64_t halving = 2 * (whole - whole / tree);
  const std::int64_t expected = rank >= tree ? whole : halving + (rank + tree < ranks ? whole : 0);
  EXPECT_EQ(traffic.row_bytes, expected);
  EXPECT_EQ(sent, traffic.row_bytes + traffic.control_bytes) << "nothing is sent that is not counted";
  // Gram sums by butterfly, rotations from one rank of each group, eigenvalues and ten numbers per exchange.
  const std::int64_t levels = std::countr_zero(static_cast<unsigned>(tree)), r = size - 1;
  std::int64_t control = 0;
  const std::int64_t numbers = (10 + r) * 8;
  if (rank >= tree || rank + tree < ranks) control += numbers;
  if (rank < tree) {
    for (std::int64_t level = 1; level <= levels; ++level) {
      control += numbers + level * r * r * 8;
      const std::int64_t place = rank & ((1 << level) - 1);
      for (std::int64_t stride = std::int64_t{1} << (level - 1); stride > 0; stride /= 2) {
        if (place % (2 * stride) == 0) control += (3 + r * (2 * r + 1)) * 8;
      }
    }
  }
  EXPECT_EQ(traffic.control_bytes, control);
}

TEST(SketchAllReduce, AutoSizesGrowTogether) {
  const int ranks = world().size(), rank = world().rank();
  std::vector<SketchState> states;
  for (int r = 0; r < ranks; ++r) {
    FrequentDirectionsOptions with = options(80, 4, at::kFloat);
    with.epsilon = 0.02;
    with.max_size = 32;
    states.push_back(
        sketch_of(testing::normal_matrix(60 + 100 * r, 80, 7 + static_cast<std::uint64_t>(r)).to(at::kFloat), with));
  }
  const SketchState merged = sketch_all_reduce(states[static_cast<std::size_t>(rank)], world());
  expect_same_bytes_everywhere(merged);
  const SketchState oracle = tree_oracle(states);
  EXPECT_EQ(merged.rule.size, oracle.rule.size);
  EXPECT_GT(merged.rule.size, 4);
  expect_equal_moments(merged, oracle, 1e-5);
}

TEST(SketchAllReduce, ShardsGiveTheSameSketchAtAnyNumberOfRanks) {
  const int ranks = world().size(), rank = world().rank();
  for (const std::int64_t shards : {1, 2, 4, 8, 16, 64}) {
    const std::int64_t examples = 64 * 13 + 5, dimension = 37, size = 6;
    const at::Tensor rows = rows_of(0, examples, dimension, at::kDouble);
    const FrequentDirectionsOptions with = options(dimension, size, at::kDouble);
    const SketchState none = FrequentDirections(with).state();
    const auto sketch_shard = [&](const ShardPlan& plan, std::int64_t shard) {
      const auto [first, last] = plan.positions(shard);
      return sketch_of(rows.narrow(0, first, last - first), with);
    };
    const ShardPlan plan = plan_shards(examples, size, shards, ranks);
    ShardTree mine(plan.home_height());
    const auto [first, last] = plan.shards_of(rank);
    for (std::int64_t shard = first; shard < last; ++shard) {
      mine.insert({0, shard}, sketch_shard(plan, shard));
      EXPECT_LE(mine.nodes().size(), static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(shards))));
    }
    std::vector<TreeNode> nodes;
    for (const auto& entry : mine.nodes()) nodes.push_back(entry.first);
    std::sort(nodes.begin(), nodes.end(),
              [](const TreeNode& a, const TreeNode& b) { return a.first_shard() < b.first_shard(); });
    EXPECT_EQ(nodes, plan.nodes_of(rank));
    world().reset_traffic();
    SketchTraffic traffic;
    const SketchState merged = sketch_all_reduce(std::move(mine), plan, none, world(), &traffic);
    EXPECT_EQ(world().traffic().bytes_sent, traffic.row_bytes + traffic.control_bytes);

    std::vector<SketchState> states;
    for (std::int64_t shard = 0; shard < shards; ++shard) states.push_back(sketch_shard(plan, shard));
    expect_same_bytes_everywhere(merged);
    expect_equal_moments(merged, tree_oracle(states), 1e-12);
    EXPECT_EQ(merged.rows_seen, examples);
  }
}

TEST(SketchAllReduce, NeedsRowsOfTheRightWidth) {
  SketchState state;
  state.rule = {4, 10, 0.0, 0};
  EXPECT_THROW(sketch_all_reduce(state, world()), InternalError);  // on every rank, before anything is sent
}

}  // namespace
}  // namespace sage
