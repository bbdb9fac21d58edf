#include "distributed/agreement.h"

#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include "core/error.h"
#include "support/mpi.h"

namespace sage {
namespace {

using namespace std::chrono_literals;

TEST(Agreement, IsTheMaximumOfEachVote) {
  Agreement agreement(runtime());
  const int rank = runtime().rank(), ranks = runtime().size();
  for (int round = 0; round < 50; ++round) {
    const int chosen = round % ranks;
    const Votes all = agreement.agree({rank == chosen ? 15 : 0, round % 2 == 1 && rank == ranks - 1 ? 1 : 0});
    EXPECT_EQ(all.stop_signal, 15);
    EXPECT_EQ(all.save, round % 2);
  }
  const Votes none = agreement.agree({});
  EXPECT_EQ(none.stop_signal, 0);
  EXPECT_EQ(none.save, 0);
}

TEST(Agreement, RunsBesideCollectivesAndOtherAgreements) {
  Agreement first(runtime()), second(runtime());
  const int rank = runtime().rank();
  for (int round = 0; round < 20; ++round) {
    first.start({rank == 0 ? round : 0, 0});
    second.start({rank == 0 ? 1000 + round : 0, 0});
    world().barrier();
    EXPECT_EQ(second.finish().stop_signal, 1000 + round);
    EXPECT_EQ(first.finish().stop_signal, round);
  }
}

TEST(Agreement, StartReturnsBeforeTheOthersHaveCome) {
  Agreement agreement(runtime());
  const bool late = runtime().rank() == runtime().size() - 1;
  if (late) std::this_thread::sleep_for(300ms);
  const auto start = std::chrono::steady_clock::now();
  agreement.start({});
  EXPECT_LT(std::chrono::steady_clock::now() - start, 200ms);
  agreement.finish();
}

TEST(Agreement, RefusesCallsOutOfOrder) {
  Agreement agreement(runtime());
  EXPECT_THROW(agreement.finish(), InternalError);
  agreement.start({});
  EXPECT_THROW(agreement.start({}), InternalError);
  agreement.finish();
}

TEST(StopSignals, AreAFlagWhileAnAgreementLives) {
  ASSERT_EQ(stop_signal(), 0);
  Agreement agreement(runtime());
  install_stop_signals();
  if (runtime().rank() == runtime().size() - 1) {
    std::raise(SIGUSR1);
    EXPECT_EQ(stop_signal(), SIGUSR1);
    std::raise(SIGTERM);  // the first one counts
    EXPECT_EQ(stop_signal(), SIGUSR1);
  }
  EXPECT_EQ(agreement.agree({stop_signal(), 0}).stop_signal, SIGUSR1);
  std::signal(SIGUSR1, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace
}  // namespace sage
