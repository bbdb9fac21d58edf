#include "distributed/sync_batch_norm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/batch_norm_backward_elemt.h>
#include <ATen/ops/batch_norm_backward_reduce.h>
#include <ATen/ops/batch_norm_elemt.h>
#include <ATen/ops/batch_norm_gather_stats_with_counts.h>
#include <ATen/ops/batch_norm_stats.h>
#include <ATen/ops/batch_norm_update_stats.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <torch/csrc/autograd/custom_function.h>
#include <optional>
#include <tuple>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using OptionalTensor = std::optional<at::Tensor>;

OptionalTensor optional(const at::Tensor& tensor) { return tensor.defined() ? OptionalTensor(tensor) : std::nullopt; }

/// Examples times positions per channel.
std::int64_t count_per_channel(const at::Tensor& input) {
  return input.size(1) == 0 ? 0 : input.numel() / input.size(1);
}

/// `mine` [K] of every rank as [ranks, K] in one all-reduce (each rank fills its own row): unlike sums of squares, this
/// loses no digits, and all ranks go on with the same bits. ALL ranks.
at::Tensor gather_statistics(const at::Tensor& mine, Communicator& communicator) {
  at::Tensor all = at::zeros({communicator.size(), mine.size(0)}, mine.options());
  all[communicator.rank()].copy_(mine);
  communicator.all_reduce_sum(all);
  return all;
}

struct Statistics {
  at::Tensor mean, variance;  // [C], of the dtype of the running statistics
  double count = 0.0;         // of all ranks
};

/// CPU: mean and (biased) variance per channel over all ranks, in float64. ALL ranks.
Statistics merged_statistics(const at::Tensor& input, Communicator& communicator) {
  const std::int64_t channels = input.size(1), count = count_per_channel(input);
  at::Tensor mine = at::zeros({1 + 2 * channels}, at::kDouble);
  if (count > 0) {
    // The pass of LibTorch's own batch normalisation: a general var_mean takes as long as all the rest of the forward.
    // Of a 16-bit input it gives 16-bit statistics, unless it is handed running ones in float32.
    OptionalTensor wide_mean, wide_variance;
    if (at::isReducedFloatingType(input.scalar_type())) {
      wide_mean = at::zeros({channels}, at::kFloat);
      wide_variance = at::zeros({channels}, at::kFloat);
    }
    auto [mean, variance] = at::batch_norm_update_stats(input, wide_mean, wide_variance, 0.0);
    mine[0].fill_(static_cast<double>(count));
    mine.narrow(0, 1, channels).copy_(mean);
    mine.narrow(0, 1 + channels, channels).copy_(variance);
  }
  const at::Tensor all = gather_statistics(mine, communicator);
  Statistics merged;
  const at::Tensor counts = all.narrow(1, 0, 1), means = all.narrow(1, 1, channels),
                   variances = all.narrow(1, 1 + channels, channels);
  merged.count = counts.sum().item<double>();
  if (merged.count == 0.0) return merged;
  // Chan et al. for any number of parts: the squared deviations within each part and of each part's mean.
  merged.mean = (counts * means).sum(0) / merged.count;
  merged.variance = (counts * (variances + (means - merged.mean).square())).sum(0) / merged.count;
  return merged;
}

void update_running(OptionalTensor running_mean, OptionalTensor running_var, const Statistics& batch, double momentum) {
  if (running_mean) {
    running_mean->mul_(1.0 - momentum).add_(batch.mean.to(running_mean->scalar_type()), momentum);
  }
  if (!running_var || batch.count <= 1.0) return;  // one value says nothing of a variance
  const double unbiased = batch.count / (batch.count - 1.0);
  running_var->mul_(1.0 - momentum).add_(batch.variance.to(running_var->scalar_type()), momentum * unbiased);
}

/// The type of statistics and of sums for an input: float32 for 16-bit types (autocast), else its own.
at::ScalarType wide_type(const at::Tensor& input) {
  return at::isReducedFloatingType(input.scalar_type()) ? at::kFloat : input.scalar_type();
}

at::Tensor per_channel(const at::Tensor& values, const at::Tensor& like) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape[1] = values.size(0);
  return values.to(wide_type(like)).view(shape);
}

Communicator& communicator_of(AutogradContext* context) {
  return *reinterpret_cast<Communicator*>(context->saved_data["communicator"].toInt());
}

/// CPU. The elementwise passes and the local sums are those of LibTorch's own batch normalisation in evaluation mode,
/// with the merged statistics in place of the running ones.
class CpuFunction : public torch::autograd::Function<CpuFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const OptionalTensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& running_mean,
                            const OptionalTensor& running_var, double momentum, double eps,
                            Communicator* communicator) {
    const Statistics batch = merged_statistics(input, *communicator);
    context->saved_data["communicator"] = reinterpret_cast<std::int64_t>(communicator);
    context->saved_data["count"] = batch.count;
    context->saved_data["eps"] = eps;
    context->saved_data["affine"] = weight.has_value();
    context->saved_data["shift"] = bias.has_value();
    if (batch.count == 0.0) {
      context->save_for_backward({input, weight.value_or(at::Tensor()), at::Tensor(), at::Tensor()});
      return at::empty_like(input);
    }
    update_running(running_mean, running_var, batch, momentum);
    const at::Tensor mean = batch.mean.to(wide_type(input)), variance = batch.variance.to(wide_type(input));
    context->save_for_backward({input, weight.value_or(at::Tensor()), mean, variance});
    if (input.numel() == 0) return at::empty_like(input);
    return std::get<0>(at::native_batch_norm(input, weight, bias, mean, variance,
                                             /*training=*/false, 0.0, eps));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &mean = saved[2], &variance = saved[3];
    const double count = context->saved_data["count"].toDouble(), eps = context->saved_data["eps"].toDouble();
    const std::int64_t channels = input.size(1);
    const auto wide = input.options().dtype(wide_type(input));
    at::Tensor by_weight = at::zeros({channels}, wide), by_bias = at::zeros({channels}, wide);
    const at::Tensor gradient = gradients[0];
    if (input.numel() > 0) {
      // With ones as the weight, by_weight = sum of gradient x normalised input, by_bias = sum of gradient.
      std::tie(std::ignore, by_weight, by_bias) =
          at::native_batch_norm_backward(gradient, input, at::ones_like(mean), mean, variance, std::nullopt,
                                         std::nullopt, /*train=*/false, eps, {false, true, true});
    }
    at::Tensor sums = at::cat({by_bias, by_weight}).to(at::kDouble);
    communicator_of(context).all_reduce_sum(sums);
    at::Tensor by_input;
    if (input.numel() == 0) {
      by_input = at::zeros_like(input);
    } else {
      // d x = w / s (d y - mean(d y) - x_hat mean(d y x_hat)), x_hat = (x - mean) / s: linear in d y and x per channel.
      const at::Tensor inverse = (variance.to(at::kDouble) + eps).rsqrt();
      const at::Tensor scale = weight.defined() ? inverse * weight.to(at::kDouble) : inverse;
      const at::Tensor slope = scale * inverse * sums.narrow(0, channels, channels) / count;
      const at::Tensor shift = slope * mean.to(at::kDouble) - scale * sums.narrow(0, 0, channels) / count;
      by_input = at::addcmul(per_channel(shift, input), gradient, per_channel(scale, input));
      by_input = by_input.addcmul_(input, per_channel(slope, input), -1).to(input.scalar_type());
    }
    const bool affine = context->saved_data["affine"].toBool(), shifted = context->saved_data["shift"].toBool();
    return {by_input,
            affine ? by_weight : at::Tensor(),
            shifted ? by_bias : at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

/// CUDA: LibTorch's kernels for synchronised statistics.
class CudaFunction : public torch::autograd::Function<CudaFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& original, const OptionalTensor& weight,
                            const OptionalTensor& bias, const OptionalTensor& running_mean,
                            const OptionalTensor& running_var, double momentum, double eps,
                            Communicator* communicator) {
    const at::Tensor input = original.suggest_memory_format() == at::MemoryFormat::ChannelsLast
                                 ? original.contiguous(at::MemoryFormat::ChannelsLast)
                                 : original.contiguous();
    const std::int64_t channels = input.size(1), count = count_per_channel(input);
    at::Tensor mine;
    if (count > 0) {
      auto [mean, inverse] = at::batch_norm_stats(input, eps);
      mine = at::cat({mean, inverse, at::full({1}, static_cast<double>(count), mean.options())});
    } else {
      const auto type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      mine = at::ones({2 * channels + 1}, input.options().dtype(type));  // finite: the kernel multiplies by the count
      mine.narrow(0, 2 * channels, 1).zero_();
    }
    at::Tensor all = gather_statistics(mine, *communicator);
    // Ranks with examples first: the kernel divides by the count so far.
    all = all.index_select(0, at::argsort(all.select(1, 2 * channels), /*stable=*/true, 0, /*descending=*/true));
    const at::Tensor means = all.narrow(1, 0, channels).contiguous(),
                     inverses = all.narrow(1, channels, channels).contiguous(),
                     counts = all.narrow(1, 2 * channels, 1).reshape({-1});
    // One value on all ranks together says nothing of a variance, and the kernel divides by the count less one. Whether
    // it is so is known here only where there are more; elsewhere the device decides.
    const at::Tensor before = running_var && count <= 1 ? running_var->clone() : at::Tensor();
    auto [mean, inverse] = at::batch_norm_gather_stats_with_counts(input, means, inverses, running_mean, running_var,
                                                                   momentum, eps, counts);
    if (before.defined()) running_var->copy_(at::where(counts.sum() > 1, *running_var, before));
    context->saved_data["communicator"] = reinterpret_cast<std::int64_t>(communicator);
    context->saved_data["affine"] = weight.has_value();
    context->saved_data["shift"] = bias.has_value();
    context->save_for_backward({input, weight.value_or(at::Tensor()), mean, inverse, counts.to(at::kInt)});
    if (input.numel() == 0) return at::empty_like(input);
    return at::batch_norm_elemt(input, weight, bias, mean, inverse, eps);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &input = saved[0], &weight = saved[1], &mean = saved[2], &inverse = saved[3], &counts = saved[4];
    const std::int64_t channels = input.size(1);
    const at::Tensor gradient = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast
                                    ? gradients[0].contiguous(at::MemoryFormat::ChannelsLast)
                                    : gradients[0].contiguous();
    at::Tensor sums = at::zeros({2 * channels}, mean.options()), by_weight = at::zeros({channels}, mean.options()),
               by_bias = by_weight;
    if (input.numel() > 0) {
      auto [sum, sum_centred, weight_part, bias_part] =
          at::batch_norm_backward_reduce(gradient, input, mean, inverse, optional(weight), true, true, true);
      sums = at::cat({sum, sum_centred});
      by_weight = weight_part;
      by_bias = bias_part;
    }
    communicator_of(context).all_reduce_sum(sums);
    const at::Tensor by_input =
        input.numel() == 0 ? at::zeros_like(input)
                           : at::batch_norm_backward_elemt(gradient, input, mean, inverse, optional(weight),
                                                           sums.narrow(0, 0, channels).contiguous(),
                                                           sums.narrow(0, channels, channels).contiguous(), counts);
    const bool affine = context->saved_data["affine"].toBool(), shifted = context->saved_data["shift"].toBool();
    return {by_input,
            affine ? by_weight : at::Tensor(),
            shifted ? by_bias : at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor sync_batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                           at::Tensor running_mean, at::Tensor running_var, double momentum, double eps,
                           Communicator& communicator) {
  require(input.dim() >= 2, "batch normalisation needs an input [n, channels, ...]");
  if (communicator.size() == 1) {
    const bool is_one_value = count_per_channel(input) == 1 && running_var.defined();
    return at::batch_norm(input, optional(weight), optional(bias), optional(running_mean),
                          optional(is_one_value ? running_var.clone() : running_var), /*training=*/true, momentum, eps,
                          /*cudnn_enabled=*/true);
  }
  if (input.is_cuda()) {
    return CudaFunction::apply(input, optional(weight), optional(bias), optional(running_mean), optional(running_var),
                               momentum, eps, &communicator);
  }
  return CpuFunction::apply(input, optional(weight), optional(bias), optional(running_mean), optional(running_var),
                            momentum, eps, &communicator);
}

}  // namespace sage
