#include "training/forgetting.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "data/sharding.h"
#include "selection/selection.h"
#include "support/thread_world.h"

namespace sage {
namespace {

constexpr std::int64_t examples = 60;

/// Whether an example is right in an epoch; example 0 never is.
bool is_right(std::int64_t id, std::int64_t epoch) {
  if (id % 20 == 0) return false;
  RandomStream stream(3, "right", static_cast<std::uint64_t>(id), static_cast<std::uint32_t>(epoch));
  return stream.uniform() < 0.6;
}
/// An epoch leaves some examples out; 59 is never visited.
bool is_visited(std::int64_t id, std::int64_t epoch) { return id != 59 && (id + epoch) % 5 != 0; }

/// Steps `first` to `last` - 1 of an epoch's ten, this rank's part.
void visit(ForgettingHistory& history, std::int64_t epoch, int first, int last, const Communicator& communicator) {
  std::vector<std::int64_t> ids;
  for (std::int64_t id = 0; id < examples; ++id) {
    if (is_visited(id, epoch)) ids.push_back(id);
  }
  const EpochPlan plan(ids, 5, communicator.rank(), communicator.size(), 1, epoch);
  for (int step = first; step < std::min<int>(last, static_cast<int>(plan.steps())); ++step) {
    const auto mine = plan.local_batch(step);
    at::Tensor right = at::empty({static_cast<std::int64_t>(mine.size())}, at::kBool);
    for (std::size_t i = 0; i < mine.size(); ++i) right.mutable_data_ptr<bool>()[i] = is_right(mine[i], epoch);
    history.note(mine, right);
  }
}

std::vector<std::int64_t> all_ids() {
  std::vector<std::int64_t> ids(examples);
  std::iota(ids.begin(), ids.end(), std::int64_t{0});
  return ids;
}

std::vector<std::int64_t> oracle(std::int64_t epochs) {
  std::vector<std::int64_t> result;
  for (std::int64_t id = 0; id < examples; ++id) {
    std::int64_t lost = 0;
    bool was_right = false, ever = false;
    for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
      if (!is_visited(id, epoch)) continue;
      const bool right = is_right(id, epoch);
      lost += was_right && !right ? 1 : 0;
      was_right = right;
      ever = ever || right;
    }
    result.push_back(ever ? lost : kNeverLearned);
  }
  return result;
}

TEST(Forgetting, CountsRightToWrongAtAnyNumberOfRanks) {
  const std::vector<std::int64_t> expected = oracle(6);
  EXPECT_EQ(expected[0], kNeverLearned);
  EXPECT_EQ(expected[59], kNeverLearned);
  EXPECT_GE(*std::max_element(expected.begin(), expected.end()), 2);
  for (const int ranks : {1, 2, 3}) {
    testing::ThreadWorld::run(ranks, [&](Communicator& communicator) {
      ForgettingHistory history(examples);
      EXPECT_TRUE(history.is_empty());
      for (std::int64_t epoch = 0; epoch < 6; ++epoch) {
        visit(history, epoch, 0, 100, communicator);
        history.end_epoch(communicator);
      }
      EXPECT_FALSE(history.is_empty());
      EXPECT_EQ(history.forgotten(all_ids()), expected);
    });
  }
}

TEST(Forgetting, GoesOnInTheMiddleOfAnEpochOnOtherRanks) {
  std::vector<NamedTensor> state;
  testing::ThreadWorld::run(3, [&](Communicator& communicator) {
    ForgettingHistory history(examples);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      visit(history, epoch, 0, 100, communicator);
      history.end_epoch(communicator);
    }
    visit(history, 3, 0, 4, communicator);
    const auto mine = history.state(communicator);
    if (communicator.rank() == 0) state = mine;
  });
  for (const int ranks : {1, 2, 3}) {
    testing::ThreadWorld::run(ranks, [&](Communicator& communicator) {
      ForgettingHistory history(examples);
      history.load_state(state, communicator.rank());
      const auto again = history.state(communicator);
      for (std::size_t i = 0; i < state.size(); ++i) EXPECT_TRUE(at::equal(again[i].tensor, state[i].tensor));
      visit(history, 3, 4, 100, communicator);
      history.end_epoch(communicator);
      for (std::int64_t epoch = 4; epoch < 6; ++epoch) {
        visit(history, epoch, 0, 100, communicator);
        history.end_epoch(communicator);
      }
      EXPECT_EQ(history.forgotten(all_ids()), oracle(6));
    });
  }
  ForgettingHistory other(examples + 1);
  EXPECT_THROW(other.load_state(state, 0), CheckpointError);
}

}  // namespace
}  // namespace sage
