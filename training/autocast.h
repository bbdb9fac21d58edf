// Lower precision where it is safe: LibTorch's autocast, for a scope.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

namespace sage {

enum class Precision { float32, bf16, fp16 };

/// By the name of training.precision. Throws ConfigError for an unknown one, and for fp16 on the CPU.
Precision to_precision(const std::string& name, at::Device device);

/// While it lives, matrix products and convolutions of this thread on tensors of `device` run in `precision`; weights
/// stay as they are, and statistics of batches are computed in float32. The backward pass needs no scope: it follows
/// the types of the forward pass. float32: does nothing.
class Autocast {
 public:
  Autocast(Precision precision, at::Device device);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::DeviceType device_;
  bool active_, was_enabled_ = false;
  at::ScalarType previous_type_ = at::ScalarType::Undefined;
};

}  // namespace sage
