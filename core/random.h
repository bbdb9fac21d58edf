// Named, counter-based random streams. A stream is a pure function of (seed, name, a, b) and a position, so that what a
// rank draws never depends on how many ranks there are or on what was drawn before elsewhere.
#pragma once
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace sage {

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the
/// seed and the name, with the counter's upper half taken by (a, b): for example ("augment", epoch, example id).
/// Satisfies UniformRandomBitGenerator.
class RandomStream {
 public:
  using result_type = std::uint32_t;

  RandomStream(std::uint64_t seed, std::string_view name, std::uint64_t a = 0, std::uint32_t b = 0);

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()();

  /// Uniform in [0, 1) with 53 bits.
  double uniform();
  /// Uniform in {0, ..., n - 1} without bias. n >= 1.
  std::uint64_t below(std::uint64_t n);
  /// Standard normal (Box-Muller).
  double normal();

 private:
  void refill();
  std::uint32_t key_[2];
  std::uint32_t counter_[4];
  std::uint32_t block_[4] = {};
  int used_ = 4;
};

/// A uniform permutation of {0, ..., n - 1} (Fisher-Yates over the stream).
std::vector<std::int64_t> random_permutation(std::int64_t n, RandomStream stream);

}  // namespace sage
