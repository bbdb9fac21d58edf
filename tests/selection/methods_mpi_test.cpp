// Every method at any number of ranks: the same answer on all, and that of one rank.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "method_cases.h"
#include "support/mpi.h"

namespace sage {
namespace {

using testing::MethodCase;

std::string bytes_of(const SelectionResult& result) {
  std::string bytes = testing::bytes_of(result);
  bytes.append(reinterpret_cast<const char*>(result.weights.data()), result.weights.size() * sizeof(float));
  return bytes;
}

TEST(MethodsOnRanks, TheNumberOfRanksDoesNotMatter) {
  const auto one = make_single_communicator(at::kCPU);
  for (const auto& variant : testing::kMethodVariants) {
    for (const bool per_class : {true, false}) {
      SCOPED_TRACE(std::string(variant.name) + (per_class ? ", per class" : ", global"));
      MethodCase test(420, 4, 6, 5);
      test.config.per_class = per_class;
      test.config.fraction = 0.13;
      variant.change(test.config);
      const SelectionResult alone = test.select(*one);
      test.source.factor_examples_seen = 0;
      const SelectionResult together = test.select(world());
      const at::Tensor seen = at::full({1}, static_cast<double>(test.source.factor_examples_seen), at::kDouble);
      world().all_reduce_sum(seen);
      EXPECT_LE(seen.item<double>(), 420.0) << "ranks share the work";

      EXPECT_EQ(together.kept, alone.kept);
      EXPECT_EQ(together.class_histogram, alone.class_histogram);
      EXPECT_EQ(together.warnings, alone.warnings);
      ASSERT_EQ(together.weights.size(), alone.weights.size());
      for (std::size_t i = 0; i < alone.weights.size(); ++i) {
        EXPECT_NEAR(together.weights[i], alone.weights[i], 1e-5 * std::abs(alone.weights[i]));
      }
      ASSERT_EQ(together.scores.size(), alone.scores.size());
      for (std::size_t i = 0; i < alone.scores.size(); ++i) EXPECT_NEAR(together.scores[i], alone.scores[i], 1e-5);

      const auto answers = world().all_gather_strings(bytes_of(together));
      for (const std::string& answer : answers) EXPECT_TRUE(answer == answers[0]) << "ranks answered differently";
      EXPECT_TRUE(bytes_of(test.select(world())) == bytes_of(together)) << "a repeat must choose exactly the same";
    }
  }
}

TEST(MethodsOnRanks, FewerExamplesThanRanks) {
  const auto one = make_single_communicator(at::kCPU);
  for (const auto& variant : testing::kMethodVariants) {
    for (const bool per_class : {true, false}) {
      SCOPED_TRACE(variant.name);
      MethodCase test(4, 2, 3, 8);  // three candidates, one held out
      test.config.per_class = per_class;
      test.config.fraction = 0.67;
      variant.change(test.config);
      const SelectionResult together = test.select(world());
      EXPECT_EQ(together.kept.size(), 2u);
      EXPECT_EQ(together.kept, test.select(*one).kept);
    }
  }
}

TEST(MethodsOnRanks, SendNothingOfBudgetTimesExamples) {
  MethodCase test(420, 4, 6, 5);
  const std::int64_t ranks = world().size(), examples = 336, held_out = 84, width = 6 + 4 + 4, budget = 84;
  for (const auto& variant : testing::kMethodVariants) {
    for (const bool per_class : {true, false}) {
      SCOPED_TRACE(variant.name);
      test.config = testing::small_config();
      test.config.per_class = per_class;
      variant.change(test.config);
      const SelectionResult result = test.select(world());
      // Factors once; scores or picks to all; at each step of a spread choice one offer a rank, a row, and for glister
      // the gradient of what is held out (or, once, the sum of all): C (F + 1) numbers.
      const std::int64_t step = 3 * ranks * 8 + (width + 1) * 8 + 4 * 7 * 8;
      EXPECT_LE(result.bytes_sent, (examples + held_out) * width * 4 +
                                       ranks * (ranks * examples * 4 + ranks * budget * 16 + 4096) +
                                       ranks * (4 * budget + 64) * step);
    }
  }
}

TEST(MethodsOnRanks, AllStopTogetherAndGoOn) {
  for (const char* method : {"diversity", "glister", "el2n"}) {
    SCOPED_TRACE(method);
    MethodCase test(420, 4, 6, 5);
    test.config.method = method;
    test.config.batch_size = 8;
    const SelectionResult whole = test.select(world());
    SelectionRequest request = test.request(world());
    std::int64_t questions = 0;
    request.stop_requested = [&] { return ++questions == 2; };
    SelectionState state;
    bool was_stopped = false;
    try {
      select_examples(request);
    } catch (const SelectionStopped& stopped) {
      state = stopped.state();
      was_stopped = true;
    }
    EXPECT_TRUE(was_stopped);
    EXPECT_EQ(state.json.empty(), world().rank() != 0);
    request.stop_requested = {};
    request.resume_from = &state;
    EXPECT_EQ(select_examples(request).kept, whole.kept);
  }
}

}  // namespace
}  // namespace sage
