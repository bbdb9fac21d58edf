// A selection that is stopped on some ranks and goes on on others, or that must not go on.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "selection/sage_selector.h"
#include "stopping_cases.h"
#include "support/thread_world.h"

namespace sage {
namespace {

using testing::Attempt;
using testing::attempt;
using testing::bytes_of;
using testing::ClassifierSource;
using testing::overlap;
using testing::small_config;
using testing::ThreadWorld;
using testing::Variant;

/// One attempt on ranks that are threads; what rank 0 has of it.
Attempt attempt_on(int ranks, const SelectionConfig& config, std::int64_t stop_at, const SelectionState* state) {
  Attempt of_first;
  ThreadWorld::run(ranks, [&](Communicator& communicator) {
    ClassifierSource source = testing::stopped_source();
    const SelectionState nothing;
    const SelectionState* mine = state == nullptr || communicator.rank() == 0 ? state : &nothing;
    Attempt result = attempt(source, config, communicator, stop_at, mine);
    if (communicator.rank() == 0) of_first = std::move(result);
  });
  return of_first;
}

TEST(StoppedSelection, GoesOnWithAnotherNumberOfRanks) {
  const std::pair<int, int> changes[] = {{2, 3}, {3, 2}, {4, 1}, {4, 2}, {5, 4}, {1, 4}, {2, 5}};
  for (const auto& [before, after] : changes) {
    SCOPED_TRACE(std::to_string(before) + " ranks, then " + std::to_string(after));
    const auto power = [](int ranks) { return ranks < 2 ? 1 : ranks < 4 ? 2 : 4; };
    for (const Variant& variant : testing::kStoppedVariants) {
      SCOPED_TRACE(variant.name);
      SelectionConfig config = small_config();
      config.batch_size = 4;
      variant.change(config);
      const Attempt whole = attempt_on(after, config, -1, nullptr);
      ASSERT_TRUE(whole.result.has_value());
      for (const std::int64_t stop_at : {std::int64_t{1}, attempt_on(before, config, -1, nullptr).questions - 1}) {
        SCOPED_TRACE(stop_at);
        const Attempt stopped = attempt_on(before, config, stop_at, nullptr);
        ASSERT_FALSE(stopped.result.has_value());
        const Attempt resumed = attempt_on(after, config, -1, &stopped.state);
        ASSERT_TRUE(resumed.result.has_value());
        const bool is_covariance = whole.result->certificate && whole.result->certificate->exact;
        // The merged sketch of pass 2 was merged by other ranks.
        const bool is_merged = stop_at > 1 && whole.result->certificate && whole.result->certificate->rows_seen > 0;
        if (power(after) <= power(before) && !is_covariance && !is_merged) {
          EXPECT_TRUE(bytes_of(*resumed.result) == bytes_of(*whole.result));
        }
        EXPECT_GE(overlap(resumed.result->kept, whole.result->kept), 0.995);
        EXPECT_EQ(resumed.result->degenerate, whole.result->degenerate);
        EXPECT_EQ(resumed.result->non_finite, whole.result->non_finite);
        EXPECT_EQ(resumed.result->estimated_noise, whole.result->estimated_noise);
        for (std::size_t i = 0; i < whole.result->scores.size(); ++i) {
          ASSERT_NEAR(resumed.result->scores[i], whole.result->scores[i], 1e-4) << i;
        }
      }
    }
  }
}

class RefusedState : public ::testing::Test {
 protected:
  /// What a selection from `state` says.
  std::string refusal(const SelectionState& state, const SelectionConfig& config, std::uint64_t seed = 1) {
    try {
      attempt(source_, config, *one_, -1, &state, seed);
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return "not refused";
  }
  void expect_refused(const SelectionState& state, const std::string& word) {
    const std::string text = refusal(state, config_);
    EXPECT_NE(text.find(word), std::string::npos) << text;
  }

  ClassifierSource source_ = testing::stopped_source();
  std::unique_ptr<Communicator> one_ = make_single_communicator(at::kCPU);
  SelectionConfig config_ = [] {
    SelectionConfig config = small_config();
    config.batch_size = 8;
    return config;
  }();
};

TEST_F(RefusedState, OfAnotherRequest) {
  const SelectionState state = attempt(source_, config_, *one_, 2).state;
  EXPECT_EQ(refusal(state, config_), "not refused");
  const auto expect_named = [&](const char* key, auto change) {
    SelectionConfig other = config_;
    change(other);
    const std::string text = refusal(state, other);
    EXPECT_NE(text.find(key), std::string::npos) << text;
  };
  expect_named("selection.sketch.size was 8 and is 9", [](SelectionConfig& c) { c.sketch.size = 9; });
  expect_named("selection.gradient.scope", [](SelectionConfig& c) { c.gradient.scope = {"full"}; });
  expect_named("selection.batch_size", [](SelectionConfig& c) { c.batch_size = 16; });
  expect_named("logical shards", [](SelectionConfig& c) { c.shards = 2; });
  expect_named("selection.keep", [](SelectionConfig& c) { c.keep = "filter"; });
  EXPECT_NE(refusal(state, config_, 2).find("seed was 1 and is 2"), std::string::npos);
  source_.labels[5] = (source_.labels[5] + 1) % 5;
  expect_refused(state, "labels (checksum)");
}

TEST_F(RefusedState, ThatIsDamaged) {
  const SelectionState state = attempt(source_, config_, *one_, 2).state;
  SelectionState other = state;
  other.json = other.json.substr(0, other.json.size() / 2);
  expect_refused(other, "damaged");
  other.json = "{\"version\": 2}";
  expect_refused(other, "version 2");
  // Rows of a shard that it cannot have, and what only looks like rows.
  const std::size_t rows = state.json.find("\"rows_done\":[") + 13;
  const std::size_t first = state.json.find_first_of(",]", rows);
  ASSERT_LT(first, state.json.size());
  for (const char* done :
       {"-2", "-1000000000", "1000000000", "9223372036854775808", "1.5", "true", "null", "\"1\"", "[]"}) {
    SCOPED_TRACE(done);
    other = state;
    other.json.replace(rows, first - rows, done);
    expect_refused(other, "damaged");
  }
  other = state;
  other.json.replace(state.json.find("\"request\":") + 10, 0, std::string(200'000, '['));
  expect_refused(other, "damaged");
  // Anything at all in the place of any byte: refused or gone on with, in order.
  int refused = 0;
  for (std::size_t i = 0; i < state.json.size(); i += 3) {
    other = state;
    other.json[i] = "0-[{\"9,"[i / 3 % 7];
    if (refusal(other, config_) != "not refused") ++refused;
  }
  EXPECT_GT(refused, 50);
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    SCOPED_TRACE(state.tensors[i].name);
    if (state.tensors[i].name.starts_with("counts.")) continue;
    other = state;
    other.tensors.erase(other.tensors.begin() + static_cast<std::ptrdiff_t>(i));
    expect_refused(other, "damaged");
    other = state;
    other.tensors[i].tensor = at::full({3, 3}, 7.0, at::kDouble);
    expect_refused(other, "damaged");
  }
  other = state;
  other.tensors.push_back({"node.40.0.rows", at::full({1, 65}, 1.0)});
  expect_refused(other, "damaged");
  other = state;
  other.tensors.push_back({"weights", at::full({1}, 1.0)});
  expect_refused(other, "weights");
}

TEST_F(RefusedState, MethodsWithoutAStateNeverAsk) {
  for (const char* method : {"random", "full"}) {
    config_.method = method;
    EXPECT_EQ(attempt(source_, config_, *one_, 0).questions, 0);
  }
}

}  // namespace
}  // namespace sage
