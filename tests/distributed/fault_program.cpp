// A job of a few steps, under run_guarded, whose last rank fails in the way that the first argument names, at step 3 of
// 5. The second argument is the deadline of collectives in seconds. faults.sh checks what comes out.
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/whereabouts.h"
#include "distributed/agreement.h"
#include "distributed/process_group_communicator.h"
#include "distributed/run_guarded.h"
#include "distributed/signals.h"

namespace {

using namespace sage;

constexpr int steps = 5, step_of_the_fault = 3;

void compute(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// faults.sh measures from here.
void print_time(const char* what) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  fmt::print("{} at {}\n", what, std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  std::fflush(stdout);
}

/// Returns the status with which this rank ends at once, or -1: it goes on.
int fail(const std::string& way, Runtime& runtime, Communicator& communicator, at::Tensor& tensor) {
  const bool last = runtime.rank() == runtime.size() - 1;
  if (way == "status") return 3;
  if (way == "all_the_same") throw DataError("the deliberate failure");
  if (way == "all_or_none") {
    communicator.all_or_none([&] {
      if (last) throw DataError("the deliberate failure");
    });
  }
  if (way == "one_while_others_compute" && !last) compute(60);
  if (way == "communicator" && !last) make_communicator(runtime, at::Device(at::kCPU));
  if (way == "slow" && last) compute(2.5);  // longer than others wait without asking
  if (!last) return -1;
  print_time("fault");
  if (way == "one_while_others_wait" || way == "one_while_others_compute") throw DataError("the deliberate failure");
  if (way == "library_error") throw std::runtime_error("the deliberate failure");
  if (way == "killed") kill(getpid(), SIGKILL);
  if (way == "segfault") *static_cast<volatile int*>(nullptr) = 1;
  if (way == "aborts") std::abort();
  if (way == "hangs") compute(60);
  if (way == "stops") kill(getpid(), SIGSTOP);
  if (way == "leaves" || way == "communicator") return 0;
  if (way == "skips") return -2;
  if (way == "other_collective") communicator.barrier();
  if (way == "other_size") tensor = at::zeros({2000});
  return -1;
}

int work(Runtime& runtime, const std::string& way) {
  CommunicatorOptions options;
  options.deadline = runtime.deadline();
  const auto communicator = make_communicator(runtime, at::Device(at::kCPU), options);
  Agreement agreement(runtime);
  at::Tensor tensor = at::zeros({1000});
  whereabouts::set_activity("training");
  for (int step = 1; step <= steps; ++step) {
    whereabouts::set_step(step);
    if (step == step_of_the_fault) {
      const int status = fail(way, runtime, *communicator, tensor);
      if (status >= 0) return status;
      if (status == -2) continue;
      if (way == "agreement" && runtime.rank() == runtime.size() - 1) return 0;
      if (way == "agreement") agreement.agree({});
    }
    agreement.start({});
    communicator->all_reduce_sum(tensor);
    agreement.finish();
  }
  whereabouts::set_step(0);
  whereabouts::set_activity("writing");
  const bool last = runtime.rank() == runtime.size() - 1;
  if (way == "one_at_the_end" && last) throw DataError("the deliberate failure");
  if (way == "slow_end" && runtime.rank() == 0) compute(2.5);  // the others are done, and ask
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Runtime runtime;
  install_crash_report();
  install_stop_signals();
  const std::string way = argc > 1 ? argv[1] : "";
  if (argc > 2) runtime.set_deadline(std::chrono::milliseconds(static_cast<std::int64_t>(1000 * std::atof(argv[2]))));
  // For the test: it looks whether any of these is left.
  fmt::print("pid {}\n", getpid());
  std::fflush(stdout);
  return run_guarded(runtime, [&] { return work(runtime, way); });
}
