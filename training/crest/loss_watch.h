// What forward passes have said of each example: its losses since the last exclusion, and how often it was forgotten.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/named_tensor.h"
#include "training/crest/example_outputs.h"

namespace sage {

/// The same on every rank. Takes 17 bytes for each example of the train split.
class LossWatch {
 public:
  explicit LossWatch(std::int64_t examples);

  void observe(std::span<const std::int64_t> ids, const ExampleOutputs& outputs);

  /// Examples that were observed since the last start_anew(), each time with a loss of at most `loss`: those of the
  /// smallest largest loss first, ties to the lower id.
  std::vector<std::int64_t> learned(double loss) const;
  void start_anew();

  /// Mean over `ids` of the part of its observations (from the second on) at which an example was wrong after it had
  /// been right the time before: forgetting events (Toneva et al., "An empirical study of example forgetting", ICLR
  /// 2019) as a rate, since examples are not observed equally often. None if none of them was observed twice.
  std::optional<double> forgettability(std::span<const std::int64_t> ids) const;

  /// Copies.
  std::vector<NamedTensor> state() const;
  /// Throws CheckpointError unless `state` holds what state() gives, for as many examples.
  void load_state(std::span<const NamedTensor> state);

 private:
  std::vector<NamedTensor> views();

  std::vector<std::int32_t> observed_, events_, transitions_;
  std::vector<float> largest_loss_;
  std::vector<std::uint8_t> last_;  // 1: right, 0: wrong, never_observed
};

}  // namespace sage
