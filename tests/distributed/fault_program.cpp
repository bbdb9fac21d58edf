// Fails in the way that its argument names, under run_guarded. faults.sh checks what comes out.
#include <ATen/ops/zeros.h>

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/error.h"
#include "distributed/process_group_communicator.h"
#include "distributed/run_guarded.h"

namespace {

using namespace sage;

int fail(Runtime& runtime, const std::string& way) {
  const auto communicator = make_communicator(runtime, at::Device(at::kCPU));
  at::Tensor tensor = at::zeros({1000});
  communicator->all_reduce_sum(tensor);
  const bool last = runtime.rank() == runtime.size() - 1;
  if (way == "none") return 0;
  if (way == "status") return 3;
  if (way == "one_while_others_wait") {
    if (last) throw DataError("the deliberate failure");
    communicator->all_reduce_sum(tensor);
  } else if (way == "one_while_others_compute") {
    if (last) throw DataError("the deliberate failure");
    std::this_thread::sleep_for(std::chrono::seconds(60));
  } else if (way == "one_at_the_end") {
    if (last) throw DataError("the deliberate failure");
  } else if (way == "all_the_same") {
    throw DataError("the deliberate failure");
  } else if (way == "all_or_none") {
    communicator->all_or_none([&] {
      if (last) throw DataError("the deliberate failure");
    });
  } else if (way == "library_error") {
    if (last) throw std::runtime_error("the deliberate failure");
    communicator->all_reduce_sum(tensor);
  } else if (way == "deadline") {
    CommunicatorOptions options;
    options.deadline = std::chrono::seconds(1);
    const auto impatient = make_communicator(runtime, at::Device(at::kCPU), options);
    if (last) std::this_thread::sleep_for(std::chrono::seconds(60));
    impatient->all_reduce_sum(tensor);
  } else {
    throw ConfigError("unknown way to fail: " + way);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  sage::Runtime runtime;
  const std::string way = argc > 1 ? argv[1] : "";
  return sage::run_guarded(runtime, [&] { return fail(runtime, way); });
}
