// How sketches travel: their numbers as one small float64 tensor, their eigenvalues, their rows. Private to this
// folder.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "core/error.h"
#include "core/sketch_state.h"
#include "distributed/communicator.h"
#include "distributed/sketch_all_reduce.h"

namespace sage {

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
    const bool direct = receive.defined() && receive.is_contiguous() && receive.device() == communicator_.device();
    const at::Tensor in = direct && receive.numel() > 0 ? receive : incoming(receive);
    count(kind, out);
    communicator_.exchange(partner, out, in);
    if (in.defined() && !direct) receive.copy_(in);
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
