#include "selection/detection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/random.h"

namespace sage {
namespace {

using Ids = std::vector<std::int64_t>;

/// Every pair of a bad and a good example.
double slow_auroc(const std::vector<float>& scores, const std::vector<bool>& is_bad) {
  double lower = 0.0, pairs = 0.0;
  for (std::size_t b = 0; b < scores.size(); ++b) {
    for (std::size_t g = 0; g < scores.size(); ++g) {
      if (!is_bad[b] || is_bad[g]) continue;
      pairs += 1.0;
      lower += scores[b] < scores[g] ? 1.0 : scores[b] == scores[g] ? 0.5 : 0.0;
    }
  }
  return lower / pairs;
}

TEST(Detection, AurocCountsPairs) {
  RandomStream stream(3, "auroc");
  for (const std::uint64_t values : {2u, 7u, 1000000u}) {  // many ties, some, none
    std::vector<float> scores;
    std::vector<bool> is_bad;
    for (int i = 0; i < 300; ++i) {
      is_bad.push_back(stream.uniform() < 0.2);
      scores.push_back(static_cast<float>(stream.below(values)) - (is_bad.back() ? 0.3f * values : 0.0f));
    }
    EXPECT_NEAR(*auroc(scores, is_bad), slow_auroc(scores, is_bad), 1e-12);
  }
}

TEST(Detection, AurocAtItsEnds) {
  const std::vector<bool> is_bad = {true, true, false, false};
  EXPECT_EQ(auroc(std::vector<float>{1, 2, 3, 4}, is_bad), 1.0);
  EXPECT_EQ(auroc(std::vector<float>{4, 3, 2, 1}, is_bad), 0.0);
  EXPECT_EQ(auroc(std::vector<float>{5, 5, 5, 5}, is_bad), 0.5);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(auroc(std::vector<float>{nan, nan, -std::numeric_limits<float>::infinity(), 0}, is_bad), 1.0)
      << "what is not a number is trusted least";
  EXPECT_FALSE(auroc(std::vector<float>{1, 2}, {true, true}).has_value());
  EXPECT_FALSE(auroc(std::vector<float>{1, 2}, {false, false}).has_value());
  EXPECT_THROW(auroc(std::vector<float>{1}, {true, false}), InternalError);
}

TEST(Detection, PrecisionAndRecallByHand) {
  const PrecisionRecall some = precision_recall(Ids{1, 4, 6, 9}, Ids{4, 5, 9});
  EXPECT_EQ(some.precision, 0.5);
  EXPECT_NEAR(*some.recall, 2.0 / 3.0, 1e-15);
  EXPECT_FALSE(precision_recall(Ids{}, Ids{1}).precision.has_value());
  EXPECT_EQ(precision_recall(Ids{}, Ids{1}).recall, 0.0);
  EXPECT_FALSE(precision_recall(Ids{1}, Ids{}).recall.has_value());
  EXPECT_EQ(membership(Ids{1, 4, 6}, Ids{0, 4}), (std::vector<bool>{false, true, false}));
}

TEST(Detection, TheLowestScored) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> scores = {0.5f, 0.1f, nan, 0.1f, 0.9f};
  const Ids ids = {10, 11, 12, 13, 14};
  EXPECT_EQ(lowest_scored(ids, scores, 0), Ids{});
  EXPECT_EQ(lowest_scored(ids, scores, 2), (Ids{11, 12})) << "of equals the lower position";
  EXPECT_EQ(lowest_scored(ids, scores, 99), ids);
  EXPECT_THROW(lowest_scored(ids, std::vector<float>{1}, 1), InternalError);
}

}  // namespace
}  // namespace sage
