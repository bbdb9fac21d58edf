#include "distributed/data_parallel.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <map>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <utility>

#include "core/error.h"

namespace sage {

struct DataParallel::Reduction {
  // The Reducer is kept by a shared_ptr: its hooks in the autograd graph look for it.
  std::shared_ptr<c10d::Reducer> reducer;
};

namespace {

/// Rank 0's values for all tensors of one dtype, in one message per dtype.
void broadcast_tensors(const std::vector<at::Tensor>& tensors, Communicator& communicator) {
  at::NoGradGuard no_grad;
  std::map<at::ScalarType, std::vector<at::Tensor>> by_type;
  for (const auto& tensor : tensors) by_type[tensor.scalar_type()].push_back(tensor);
  for (const auto& [type, group] : by_type) {
    std::vector<at::Tensor> flat;
    for (const auto& tensor : group) flat.push_back(tensor.detach().contiguous().view({-1}));
    const at::Tensor all = at::cat(flat);
    communicator.broadcast(all, 0);
    std::int64_t start = 0;
    for (const auto& tensor : group) {
      tensor.detach().copy_(all.narrow(0, start, tensor.numel()).view(tensor.sizes()));
      start += tensor.numel();
    }
  }
}

}  // namespace

DataParallel::DataParallel(std::vector<at::Tensor> parameters, std::vector<at::Tensor> buffers,
                           Communicator& communicator, std::int64_t bucket_bytes)
    : parameters_(std::move(parameters)), buffers_(std::move(buffers)), communicator_(communicator) {
  require(!parameters_.empty(), "data-parallel training of no parameters");
  require(bucket_bytes > 0, "gradient buckets need a positive size");
  for (const auto& parameter : parameters_) {
    require(parameter.is_leaf() && parameter.requires_grad(), "data-parallel parameters must be leaves with gradients");
  }
  if (communicator.size() == 1) return;
  broadcast_state();

  const std::vector<bool> sparse(parameters_.size(), false);
  // Small first buckets, as PyTorch makes them: reduction starts early in the backward pass.
  const auto cap = static_cast<std::size_t>(bucket_bytes);
  const std::size_t first = std::min<std::size_t>(cap, c10d::kDefaultFirstBucketBytes);
  auto [buckets, limits] = c10d::compute_bucket_assignment_by_size(parameters_, {first, cap}, sparse);
  // Gradients arrive from the last layer to the first.
  std::reverse(buckets.begin(), buckets.end());
  reduction_ = std::make_unique<Reduction>();
  reduction_->reducer = std::make_shared<c10d::Reducer>(
      parameters_, std::move(buckets), communicator.process_group(), sparse, bucket_bytes,
      /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
      /*param_names=*/std::unordered_map<std::size_t, std::string>{}, static_cast<std::int64_t>(first),
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
      /*bucket_bytes_cap_list=*/std::vector<std::int64_t>{});
  settle_buckets();
}

void DataParallel::settle_buckets() {
  // The Reducer orders its buckets by the arrival of gradients in its first backward pass. It gets an empty one, in the
  // order from the last parameter to the first: so every step has the same buckets and adds in the same order, also the
  // first one after a resume.
  at::Tensor nothing;
  for (const auto& parameter : parameters_) {
    const at::Tensor zero = parameter.sum() * 0.0;
    nothing = nothing.defined() ? nothing + zero : zero;
  }
  reduction_->reducer->prepare_for_forward();
  reduction_->reducer->prepare_for_backward({nothing});
  nothing.backward();
  reduction_->reducer->rebuild_buckets();
}

DataParallel::~DataParallel() = default;

void DataParallel::broadcast_buffers() {
  if (communicator_.size() > 1 && !buffers_.empty()) broadcast_tensors(buffers_, communicator_);
}

void DataParallel::broadcast_state() {
  if (communicator_.size() == 1) return;
  broadcast_tensors(parameters_, communicator_);
  broadcast_tensors(buffers_, communicator_);
}

void DataParallel::zero_gradients() {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters_) {
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  if (!gradients.empty()) at::_foreach_zero_(gradients);
}

void DataParallel::prepare_forward() {
  if (reduction_) reduction_->reducer->prepare_for_forward();
}

void DataParallel::prepare_backward(const at::Tensor& loss) {
  if (reduction_) reduction_->reducer->prepare_for_backward({loss});
}

void DataParallel::finish_step() {
  if (reduction_) reduction_->reducer->check_finalized();
}

}  // namespace sage
