// How candidates are cut into groups that are chosen from one by one, and dealt out to ranks.
#include "selection/group_selection.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "method_cases.h"

namespace sage {
namespace {

using testing::MethodCase;

TEST(Groups, ArePartsOfTheClassesAndDealtEvenly) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 100; ++i) labels.push_back(i % 10 == 0 ? 0 : 1);  // 10 and 90
  const std::vector<Group> groups = cut_into_parts(group_by_class(labels, 3, 20), 25, 1, 0);
  ASSERT_EQ(groups.size(), 5u);
  std::set<std::int64_t> all;
  std::int64_t budget = 0;
  for (const Group& group : groups) {
    EXPECT_LE(group.members.size(), 25u);
    EXPECT_LE(group.budget, static_cast<std::int64_t>(group.members.size()));
    EXPECT_TRUE(std::is_sorted(group.members.begin(), group.members.end()));
    for (const std::int64_t member : group.members) {
      EXPECT_EQ(labels[static_cast<std::size_t>(member)], group.label);
      EXPECT_TRUE(all.insert(member).second);
    }
    budget += group.budget;
  }
  EXPECT_EQ(all.size(), 100u);
  EXPECT_EQ(budget, 20);
  const std::vector<int> owners = deal_out(groups, 3);
  std::vector<std::size_t> load(3, 0);
  for (std::size_t g = 0; g < groups.size(); ++g) load[static_cast<std::size_t>(owners[g])] += groups[g].members.size();
  EXPECT_LE(*std::max_element(load.begin(), load.end()) - *std::min_element(load.begin(), load.end()), 25u);
}

TEST(Groups, AKernelBeyondTheLimitIsCut) {
  MethodCase test(12000, 2, 4, 6);
  test.config.method = "craig";
  test.config.memory_limit_mib = 4;  // kernels of at most 1,024
  test.config.fraction = 0.005;
  for (const bool per_class : {true, false}) {
    test.config.per_class = per_class;
    const SelectionResult result = test.select(*make_single_communicator(at::kCPU));
    EXPECT_EQ(result.kept.size(), 48u);
    double sum = 0.0;
    for (const float weight : result.weights) sum += weight;
    EXPECT_EQ(sum, 9600.0);
  }
}

}  // namespace
}  // namespace sage
