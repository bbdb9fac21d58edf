// main() of the test programs that run on several ranks. Rank 0 prints as usual; the others print their failures only.
// If any rank fails, all ranks exit with a non-zero status.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>

#include "core/error.h"
#include "support/mpi.h"

namespace {

sage::Runtime* the_runtime = nullptr;
sage::Communicator* the_world = nullptr;

class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestStart(const testing::TestInfo& test) override {
    test_ = fmt::format("{}.{}", test.test_suite_name(), test.name());
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const std::string text =
        fmt::format("[rank {}] {} failed at {}:{}\n{}\n", rank_, test_,
                    result.file_name() != nullptr ? result.file_name() : "?", result.line_number(), result.message());
    std::fwrite(text.data(), 1, text.size(), stderr);
  }

  int rank_;
  std::string test_;
};

}  // namespace

namespace sage {
Communicator& world() { return *the_world; }
Runtime& runtime() { return *the_runtime; }
}  // namespace sage

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  sage::Runtime runtime;
  the_runtime = &runtime;
  if (runtime.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter(runtime.rank()));
  }

  sage::CommunicatorOptions options;
  options.deadline = std::chrono::seconds(60);  // a rank that left a test early makes the others fail, not hang
  auto communicator = sage::make_communicator(runtime, at::Device(at::kCPU), options);
  the_world = communicator.get();

  int failed = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) failed = 1;
  const int mine = failed;
  sage::check_mpi(MPI_Allreduce(&mine, &failed, 1, MPI_INT, MPI_MAX, runtime.world()), "MPI_Allreduce");
  communicator.reset();
  return failed;
}
