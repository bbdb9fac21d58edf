#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace sage {
namespace {

TEST(RandomStream, IsAPureFunctionOfItsName) {
  RandomStream a(7, "shuffle", 3), b(7, "shuffle", 3);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a(), b());
  std::set<std::uint32_t> firsts;
  for (std::uint64_t seed : {0, 1})
    for (const char* name : {"shuffle", "augment"})
      for (std::uint64_t x : {0ULL, 1ULL, 1ULL << 40}) firsts.insert(RandomStream(seed, name, x, 5)());
  EXPECT_EQ(firsts.size(), 12U);
}

TEST(RandomStream, BelowIsUniform) {
  RandomStream stream(1, "test");
  constexpr int bins = 7, draws = 70000;
  std::vector<double> counts(bins);
  for (int i = 0; i < draws; ++i) ++counts[stream.below(bins)];
  double chi_squared = 0;
  for (double count : counts) chi_squared += (count - draws / bins) * (count - draws / bins) / (draws / bins);
  EXPECT_LT(chi_squared, 22.5);  // 0.1 % point of chi-squared with 6 degrees of freedom
}

TEST(RandomStream, NormalHasItsMoments) {
  RandomStream stream(2, "test");
  constexpr int draws = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < draws; ++i) {
    const double x = stream.normal();
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / draws, 0, 0.015);
  EXPECT_NEAR(squares / draws, 1, 0.02);
  EXPECT_NEAR(fourth / draws, 3, 0.15);
}

TEST(RandomPermutation, HoldsEveryIndexOnceAndMovesThem) {
  const auto order = random_permutation(1000, RandomStream(3, "test"));
  EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 1000U);
  int fixed = 0;
  for (std::size_t i = 0; i < order.size(); ++i) fixed += order[i] == static_cast<std::int64_t>(i);
  EXPECT_LT(fixed, 8);  // one is expected
}

}  // namespace
}  // namespace sage
