#include "training/autocast.h"

#include <ATen/autocast_mode.h>
#include <fmt/format.h>

#include "core/error.h"

namespace sage {

Precision to_precision(const std::string& name, at::Device device) {
  if (name == "float32") return Precision::float32;
  if (name == "bf16") return Precision::bf16;
  if (name != "fp16")
    throw ConfigError(fmt::format("training.precision is '{}': expected float32, bf16 or fp16", name));
  if (!device.is_cuda()) {
    throw ConfigError("training.precision is fp16, which needs a GPU, but this run computes on the CPU: use bf16");
  }
  return Precision::fp16;
}

Autocast::Autocast(Precision precision, at::Device device)
    : device_(device.type()), active_(precision != Precision::float32) {
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(device_);
  previous_type_ = at::autocast::get_autocast_dtype(device_);
  at::autocast::set_autocast_enabled(device_, true);
  at::autocast::set_autocast_dtype(device_, precision == Precision::bf16 ? at::kBFloat16 : at::kHalf);
  at::autocast::increment_nesting();
}

Autocast::~Autocast() {
  if (!active_) return;
  // The cast copies of the weights are kept for the outermost scope: the next step has other weights.
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(device_, was_enabled_);
  at::autocast::set_autocast_dtype(device_, previous_type_);
}

}  // namespace sage
