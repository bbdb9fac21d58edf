// What the benchmark programs share: medians of interleaved repeats, the machine's own rate of multiplying matrices,
// and the JSON lines that table.py joins.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

namespace sage::benchmarks {

/// Wall-clock seconds of one call.
template <class Action>
double seconds_of(const Action& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

/// Calls all actions in turn, once to warm up and then `repeats` times: what else the machine does falls on all of them
/// alike. The median seconds of each, in their order.
inline std::vector<double> interleaved_medians(int repeats, const std::vector<std::function<void()>>& actions) {
  std::vector<std::vector<double>> seconds(actions.size());
  for (int repeat = -1; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < actions.size(); ++i) {
      const double taken = seconds_of(actions[i]);
      if (repeat >= 0) seconds[i].push_back(taken);
    }
  }
  std::vector<double> medians;
  for (auto& of_one : seconds) medians.push_back(median(std::move(of_one)));
  return medians;
}

/// A large float32 matrix product with the threads of this process, to be timed among other actions: its multiply-adds
/// by its seconds are the machine's own rate.
class MatrixProduct {
 public:
  /// [size, size] times [size, size].
  explicit MatrixProduct(std::int64_t size = 2048)
      : left_(at::ones({size, size}, at::kFloat)),
        right_(at::ones({size, size}, at::kFloat)),
        product_(at::empty({size, size}, at::kFloat)) {}
  void operator()() { at::mm_out(product_, left_, right_); }
  double multiply_adds() const {
    const auto size = static_cast<double>(left_.size(0));
    return size * size * size;
  }

 private:
  at::Tensor left_, right_, product_;
};

/// One line of standard output; README.md says what the keys mean.
inline void print_row(const nlohmann::ordered_json& row) {
  std::printf("%s\n", row.dump().c_str());
  std::fflush(stdout);
}

}  // namespace sage::benchmarks
