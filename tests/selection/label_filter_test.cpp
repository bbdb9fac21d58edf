#include "selection/label_filter.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace sage {
namespace {

using Counts = std::vector<std::int64_t>;

TEST(ConfidentCounting, CountsAsByHand) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  const at::Tensor p = at::tensor({0.9f, 0.1f, 0.0f,   // labelled 0
                                   0.5f, 0.3f, 0.2f,   // 0: below its own threshold 0.5 only by the next one
                                   0.1f, 0.9f, 0.0f,   // 0, looks like 1
                                   0.2f, 0.8f, 0.0f,   // 1
                                   0.6f, 0.4f, 0.0f,   // 1, looks like 0
                                   0.4f, 0.3f, 0.3f})  // 1: sure of nothing
                           .view({6, 3});
  const Counts labels = {0, 0, 0, 1, 1, 1};
  ConfidentCounting counting(3);
  counting.add_threshold(p.narrow(0, 0, 2), std::span(labels).subspan(0, 2));
  counting.add_threshold(p.narrow(0, 2, 4), std::span(labels).subspan(2));
  counting.reduce_thresholds(*one);
  EXPECT_NEAR(counting.thresholds()[0], 0.5, 1e-7);
  EXPECT_NEAR(counting.thresholds()[1], 0.5, 1e-7);
  EXPECT_TRUE(std::isinf(counting.thresholds()[2])) << "a class without examples is never the answer";
  counting.count(p, labels);
  counting.reduce_counts(*one);
  EXPECT_EQ(counting.suspects().confident, (Counts{1, 1, 0}));
  EXPECT_EQ(counting.suspects().chance, (Counts{1, 1, 0})) << "p_y of 0.1 and 0.3 are below a third";
  EXPECT_EQ(counting.suspects().both, (Counts{1, 0, 0})) << "the last of class 1 is below chance, and sure of nothing";
}

TEST(ConfidentCounting, AProbabilityThatIsNotFiniteSpoilsNothing) {
  const std::unique_ptr<Communicator> one = make_single_communicator(at::kCPU);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor p = at::tensor({0.8f, 0.2f, nan, nan, 0.3f, 0.7f}).view({3, 2});
  const Counts labels = {0, 0, 1};
  ConfidentCounting counting(2);
  counting.add_threshold(p, labels);
  counting.reduce_thresholds(*one);
  EXPECT_NEAR(counting.thresholds()[0], 0.8, 1e-7);
  counting.count(p, labels);
  EXPECT_EQ(counting.suspects().confident, (Counts{0, 0}));
  EXPECT_EQ(counting.suspects().chance, (Counts{0, 0}));
}

TEST(LabelFilter, PeerScoresByHand) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor p = at::tensor({0.7f, 0.2f, 0.1f,  // labelled 0
                                   0.5f, 0.1f, 0.4f,  // 1
                                   0.0f, 1.0f, 0.0f,  // 0: p_y is 0
                                   nan, nan, nan})    // 2
                           .view({4, 3});
  const std::vector<double> thresholds = {0.6, 0.3, std::numeric_limits<double>::infinity()};
  std::vector<float> loss, margin;
  append_peer_scores(p.narrow(0, 0, 1), Counts{0}, thresholds, loss, margin);
  append_peer_scores(p.narrow(0, 1, 3), Counts{1, 0, 2}, thresholds, loss, margin);
  const float lowest = std::numeric_limits<float>::lowest();
  ASSERT_EQ(loss.size(), 4u);
  EXPECT_NEAR(loss[0], std::log(0.7), 1e-6);
  EXPECT_NEAR(loss[1], std::log(0.1), 1e-6);
  EXPECT_EQ(loss[2], lowest);
  EXPECT_EQ(loss[3], lowest);
  EXPECT_NEAR(margin[0], (0.7 - 0.6) - (0.2 - 0.3), 1e-6) << "a class without examples is no rival";
  EXPECT_NEAR(margin[1], (0.1 - 0.3) - (0.5 - 0.6), 1e-6);
  EXPECT_NEAR(margin[2], (0.0 - 0.6) - (1.0 - 0.3), 1e-6);
  EXPECT_EQ(margin[3], lowest);
}

TEST(LabelFilter, GateAndFixedCut) {
  const SuspectCounts few = {{1, 2}, {2, 1}, {1, 0}}, many = {{4, 8}, {3, 5}, {2, 1}};
  EXPECT_EQ(estimated_wrong(many, "either"), 10.0);
  EXPECT_EQ(estimated_wrong(many, "chance"), 8.0);
  EXPECT_EQ(estimated_wrong(many, "confident"), 12.0);
  for (const char* rule : {"either", "chance", "confident"}) {
    EXPECT_EQ(gated_cut(few, rule, 0.031, 100), (Counts{0, 0})) << rule;
    EXPECT_NE(gated_cut(few, rule, 0.03, 100), (Counts{0, 0})) << rule;
  }
  EXPECT_EQ(gated_cut(many, "either", 0.05, 100), (Counts{5, 12}));
  EXPECT_EQ(gated_cut(many, "chance", 0.05, 100), (Counts{3, 5}));
  EXPECT_EQ(gated_cut(many, "confident", 0.05, 100), (Counts{4, 8}));
  EXPECT_EQ(fixed_cut(0.3, Counts{10, 5, 0}), (Counts{3, 2, 0}));
  EXPECT_EQ(fixed_cut(0.0, Counts{10}), Counts{0});
  EXPECT_THROW(fixed_cut(1.0, Counts{10}), ConfigError);
  EXPECT_THROW(fixed_cut(-0.5, Counts{10}), ConfigError);
}

TEST(LabelFilter, CutsTheLeastTrustedOfEachClass) {
  const std::vector<float> trust = {0.9f, 0.1f, 0.5f, 0.1f, 0.2f, 0.3f};
  const Counts labels = {0, 0, 1, 0, 1, 1};
  EXPECT_EQ(least_trusted(trust, labels, Counts{1, 2}), (Counts{3, 4, 5}));  // of equals the higher position goes
  EXPECT_EQ(least_trusted(trust, labels, Counts{0, 0}), Counts{});
  EXPECT_EQ(least_trusted(trust, labels, Counts{99, 0}), (Counts{0, 1, 3}));
}

}  // namespace
}  // namespace sage
