#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace sage {

/// A tensor with the name that a model, an optimizer or a file gives it.
struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

}  // namespace sage
