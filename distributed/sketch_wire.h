// How sketches travel: their numbers as one small float64 tensor, their eigenvalues, their rows. Private to this
// folder.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "core/error.h"
#include "core/sketch_state.h"
#include "distributed/communicator.h"
#include "distributed/sketch_all_reduce.h"

namespace sage {

constexpr std::int64_t kSketchNumbers = 9;

/// Everything of a sketch but its tensors: [kSketchNumbers], float64. Counts stay exact below 2^53.
inline at::Tensor sketch_numbers(const SketchState& state) {
  return at::tensor({static_cast<double>(state.row_count()), static_cast<double>(state.rule.size),
                     static_cast<double>(state.rule.dimension), state.rule.epsilon,
                     static_cast<double>(state.rule.max_size), state.error_bound, state.squared_norm,
                     static_cast<double>(state.rows_seen), static_cast<double>(state.smallest_size)},
                    at::kDouble);
}

/// The inverse: `rows` and `eigenvalues` are left to be filled; returns their number of rows.
inline std::int64_t read_sketch_numbers(const at::Tensor& numbers, SketchState& state) {
  const double* value = numbers.const_data_ptr<double>();
  state.rule = {static_cast<std::int64_t>(value[1]), static_cast<std::int64_t>(value[2]), value[3],
                static_cast<std::int64_t>(value[4])};
  state.error_bound = value[5];
  state.squared_norm = value[6];
  state.rows_seen = static_cast<std::int64_t>(value[7]);
  state.smallest_size = static_cast<std::int64_t>(value[8]);
  return static_cast<std::int64_t>(value[0]);
}

/// Communicator::exchange for tensors on any device, with empty ones left out, counted.
class SketchWire {
 public:
  SketchWire(Communicator& communicator, SketchTraffic& traffic) : communicator_(communicator), traffic_(traffic) {}

  enum class Kind { rows, control };

  /// A tensor as it can be sent: contiguous and on the communicator's device; undefined if there is nothing in it.
  at::Tensor outgoing(const at::Tensor& tensor) const {
    if (!tensor.defined() || tensor.numel() == 0) return {};
    return tensor.contiguous().to(communicator_.device());
  }
  /// Memory to receive something like `tensor` into.
  at::Tensor incoming(const at::Tensor& tensor) const {
    if (!tensor.defined() || tensor.numel() == 0) return {};
    return at::empty(tensor.sizes(), tensor.options().device(communicator_.device()));
  }

  /// ALL ranks; partner -1 takes part with nothing. `receive` (any device, any strides) is filled.
  void exchange(int partner, Kind kind, const at::Tensor& send, at::Tensor receive) {
    if (partner < 0) return communicator_.exchange(-1, {}, {});
    const at::Tensor out = outgoing(send);
    at::Tensor in = incoming(receive);
    count(kind, out);
    communicator_.exchange(partner, out, in);
    if (in.defined()) receive.copy_(in);
  }

  void count(Kind kind, const at::Tensor& out) {
    if (!out.defined()) return;
    (kind == Kind::rows ? traffic_.row_bytes : traffic_.control_bytes) += static_cast<std::int64_t>(out.nbytes());
  }

 private:
  Communicator& communicator_;
  SketchTraffic& traffic_;
};

}  // namespace sage
