#include "data/corruption.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"

namespace sage {
namespace {

std::vector<std::int64_t> cyclic_labels(std::int64_t count, std::int64_t classes) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(i % classes);
  return labels;
}

TEST(CorruptLabels, ChangesExactlyTheRoundedNumberAndAlwaysDiffers) {
  for (const std::int64_t count : {1, 7, 100, 1003}) {
    for (const std::int64_t classes : {2, 3, 10}) {
      for (const double rate : {0.0, 0.001, 0.2, 0.37, 1.0}) {
        for (const char* kind : {"symmetric", "pair"}) {
          const auto clean = cyclic_labels(count, classes);
          auto labels = clean;
          const auto ids = corrupt_labels(labels, classes, rate, kind, 5);
          EXPECT_EQ(static_cast<std::int64_t>(ids.size()), std::llround(rate * static_cast<double>(count)));
          EXPECT_TRUE(std::ranges::is_sorted(ids));
          const std::set<std::int64_t> changed(ids.begin(), ids.end());
          EXPECT_EQ(changed.size(), ids.size());
          for (std::int64_t i = 0; i < count; ++i) {
            const auto at = static_cast<std::size_t>(i);
            EXPECT_EQ(labels[at] != clean[at], changed.contains(i));
            EXPECT_TRUE(labels[at] >= 0 && labels[at] < classes);
            if (changed.contains(i) && kind == std::string("pair")) {
              EXPECT_EQ(labels[at], (clean[at] + 1) % classes);
            }
          }
        }
      }
    }
  }
}

TEST(CorruptLabels, SymmetricReachesEveryOtherClassAlike) {
  constexpr std::int64_t classes = 5, count = 20000;
  auto labels = cyclic_labels(count, classes);
  const auto clean = labels;
  corrupt_labels(labels, classes, 1.0, "symmetric", 1);
  std::vector<std::int64_t> steps(classes);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    ++steps[static_cast<std::size_t>((labels[i] - clean[i] + classes) % classes)];
  }
  EXPECT_EQ(steps[0], 0);
  // 5000 expected of each; the standard deviation is 61.
  for (std::size_t s = 1; s < steps.size(); ++s) EXPECT_NEAR(static_cast<double>(steps[s]), 5000.0, 5 * 61.3);
}

TEST(CorruptLabels, RepeatsForTheSameSeedOnlyAndStaysWithinTheIds) {
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 1; id < 300; id += 3) ids.push_back(id);
  auto a = cyclic_labels(300, 10), b = a, c = a;
  const auto clean = a;
  EXPECT_EQ(corrupt_labels(a, ids, 10, 0.4, "symmetric", 3), corrupt_labels(b, ids, 10, 0.4, "symmetric", 3));
  EXPECT_EQ(a, b);
  EXPECT_NE(corrupt_labels(c, ids, 10, 0.4, "symmetric", 4), std::vector<std::int64_t>{});
  EXPECT_NE(a, c);
  std::int64_t changed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (i % 3 != 1) {
      EXPECT_EQ(a[i], clean[i]);
    }
    changed += a[i] != clean[i];
  }
  EXPECT_EQ(changed, 40);
}

TEST(CorruptLabels, RefusesBadOptions) {
  auto labels = cyclic_labels(10, 2);
  EXPECT_THROW(corrupt_labels(labels, 2, 1.5, "pair", 0), ConfigError);
  EXPECT_THROW(corrupt_labels(labels, 2, std::nan(""), "pair", 0), ConfigError);
  EXPECT_THROW(corrupt_labels(labels, 2, 0.5, "triple", 0), ConfigError);
  EXPECT_THROW(corrupt_labels(labels, 1, 0.5, "pair", 0), ConfigError);
}

Dataset with_labels(std::vector<std::int64_t> labels, std::int64_t classes) {
  Dataset dataset;
  dataset.class_count = classes;
  dataset.train.labels = std::move(labels);
  return dataset;
}

TEST(ValidationSplit, IsStratifiedExactAndDisjoint) {
  std::vector<std::int64_t> labels;
  const std::int64_t sizes[] = {100, 53, 7, 1};
  for (std::int64_t c = 0; c < 4; ++c) labels.insert(labels.end(), static_cast<std::size_t>(sizes[c]), c);
  const Dataset dataset = with_labels(labels, 4);
  for (const double fraction : {0.0, 0.1, 0.25, 0.9}) {
    const ValidationSplit split = split_validation(dataset, fraction, 7);
    EXPECT_EQ(static_cast<std::int64_t>(split.validation.size()), std::llround(fraction * 161));
    std::vector<std::int64_t> all = split.train;
    all.insert(all.end(), split.validation.begin(), split.validation.end());
    EXPECT_TRUE(std::ranges::is_sorted(split.train) && std::ranges::is_sorted(split.validation));
    std::ranges::sort(all);
    for (std::int64_t i = 0; i < 161; ++i) ASSERT_EQ(all.at(static_cast<std::size_t>(i)), i);
    for (std::int64_t c = 0; c < 4; ++c) {
      const auto taken = std::ranges::count_if(
          split.validation, [&](std::int64_t id) { return labels[static_cast<std::size_t>(id)] == c; });
      EXPECT_LT(std::abs(static_cast<double>(taken) - fraction * static_cast<double>(sizes[c])), 1.0 + 0.5);
    }
  }
  EXPECT_EQ(split_validation(dataset, 0.25, 7).validation, split_validation(dataset, 0.25, 7).validation);
  EXPECT_NE(split_validation(dataset, 0.25, 7).validation, split_validation(dataset, 0.25, 8).validation);
}

TEST(ValidationSplit, RefusesFractionsThatLeaveNothing) {
  const Dataset dataset = with_labels(cyclic_labels(10, 2), 2);
  for (const double fraction : {1.0, -0.1, 0.01, 0.99})
    EXPECT_THROW(split_validation(dataset, fraction, 0), ConfigError);
}

}  // namespace
}  // namespace sage
