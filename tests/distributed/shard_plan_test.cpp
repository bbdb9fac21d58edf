#include "distributed/shard_plan.h"

#include <gtest/gtest.h>

#include <set>

#include "core/error.h"

namespace sage {
namespace {

TEST(ShardPlan, ShardCountDependsOnExamplesAndSizeOnly) {
  struct Case {
    std::int64_t examples, size, shards;
  };
  for (const Case c : {Case{50000, 256, 32}, Case{60000, 64, 64}, Case{1000000, 64, 64}, Case{1000, 256, 1},
                       Case{0, 8, 1}, Case{2047, 256, 1}, Case{2048, 256, 2}, Case{1437, 64, 4}}) {
    for (int ranks = 1; ranks <= 9; ++ranks) {
      EXPECT_EQ(plan_shards(c.examples, c.size, 0, ranks).shard_count(), c.shards) << c.examples << ", " << c.size;
    }
  }
  EXPECT_EQ(plan_shards(10, 256, 8, 3).shard_count(), 8);
  EXPECT_THROW(plan_shards(10, 256, 6, 3), ConfigError);
  EXPECT_THROW(plan_shards(10, 256, -1, 3), ConfigError);
}

TEST(ShardPlan, CutsEverythingOnce) {
  for (const std::int64_t examples : {0, 1, 7, 100, 1013}) {
    for (const std::int64_t shards : {1, 2, 8, 64}) {
      for (int ranks = 1; ranks <= 11; ++ranks) {
        const ShardPlan plan = plan_shards(examples, 4, shards, ranks);
        std::int64_t shard = 0, position = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const auto [first, last] = plan.shards_of(rank);
          EXPECT_EQ(first, shard);
          EXPECT_EQ(plan.positions_of(rank).first, position);
          for (; shard < last; ++shard) {
            EXPECT_EQ(plan.positions(shard).first, position);
            position = plan.positions(shard).second;
          }
          EXPECT_EQ(plan.positions_of(rank).second, position);
          EXPECT_LE(plan.positions_of(rank).second - plan.positions_of(rank).first, plan.most_positions());
        }
        EXPECT_EQ(shard, shards);
        EXPECT_EQ(position, examples);
      }
    }
  }
}

TEST(ShardPlan, NodesAreCompleteMaximalAndReachTheirHomes) {
  for (const std::int64_t shards : {1, 2, 8, 64}) {
    for (int ranks = 1; ranks <= 11; ++ranks) {
      const ShardPlan plan = plan_shards(1000, 4, shards, ranks);
      EXPECT_LE(plan.home_count(), ranks);
      EXPECT_GT(2 * plan.home_count(), std::min<std::int64_t>(ranks, shards));
      EXPECT_EQ(plan.home_count() << plan.home_height(), shards);
      for (int rank = 0; rank < ranks; ++rank) {
        auto [shard, last] = plan.shards_of(rank);
        std::set<TreeNode> nodes;
        for (const TreeNode& node : plan.nodes_of(rank)) {
          EXPECT_EQ(node.first_shard(), shard);
          shard += std::int64_t{1} << node.height;
          EXPECT_LE(node.height, plan.home_height());
          const int home = plan.home_of(node);
          EXPECT_LT(home, plan.home_count());
          EXPECT_EQ(home, node.first_shard() / (shards / plan.home_count()));
          EXPECT_FALSE(node.height < plan.home_height() && nodes.contains(node.sibling())) << "could be merged";
          nodes.insert(node);
          if (ranks == plan.home_count()) {
            EXPECT_EQ(home, rank) << "nothing need travel";
          }
        }
        EXPECT_EQ(shard, last);
      }
    }
  }
}

}  // namespace
}  // namespace sage
