#include "selection/last_layer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>

#include "selection/consensus.h"

namespace sage {

at::Tensor with_one(const at::Tensor& features) {
  return at::cat({features, at::ones({features.size(0), 1}, features.options())}, 1);
}

void correlate(const at::Tensor& residuals, const at::Tensor& extended, const at::Tensor& direction,
               std::span<double> out) {
  const at::Tensor values = (at::mm(extended, direction.t()) * residuals).sum(1);
  std::copy_n(values.const_data_ptr<double>(), out.size(), out.begin());
}

at::Tensor sum_of_gradients(const at::Tensor& residuals, const at::Tensor& extended, Communicator& communicator) {
  const at::Tensor sum = at::mm(residuals.t(), extended);
  all_reduce_sum_anywhere(communicator, sum);
  return sum;
}

at::Tensor joined(const at::Tensor& extended, const at::Tensor& residuals) { return at::cat({extended, residuals}, 1); }

}  // namespace sage
