#include "training/crest/example_outputs.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "data/sharding.h"

namespace sage {
namespace {

/// This rank's passes, one after the other.
at::Tensor local_logits(Classifier& network, const ImageStore& images, std::span<const std::int64_t> ids,
                        std::int64_t chunk, const Communicator& communicator) {
  const EvalMode eval_mode(network);
  const auto count = static_cast<std::int64_t>(ids.size());
  const Range chunks = balanced_range((count + chunk - 1) / chunk, communicator.rank(), communicator.size());
  const auto type = network.head().weight().scalar_type();
  std::vector<at::Tensor> parts{at::empty({0, network.class_count()}, at::TensorOptions(type).device(images.device()))};
  for (std::int64_t begin = chunks.begin * chunk; begin < std::min(chunks.end * chunk, count); begin += chunk) {
    const auto part =
        ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(chunk, count - begin)));
    parts.push_back(network.forward(images.images_of(part).to(type)));
  }
  return at::cat(parts);
}

}  // namespace

ExampleOutputs forward_examples(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                                std::span<const std::int64_t> ids, std::int64_t chunk, double label_smoothing,
                                Communicator& communicator) {
  require(!ids.empty() && chunk >= 1, "forward_examples: there are no examples");
  const at::NoGradGuard no_gradients;
  const at::Tensor logits = communicator.all_gather_rows(local_logits(network, images, ids, chunk, communicator)).cpu();
  std::vector<std::int64_t> targets;
  targets.reserve(ids.size());
  for (const std::int64_t id : ids) targets.push_back(labels[static_cast<std::size_t>(id)]);
  const at::Tensor target = to_device(targets, at::kCPU);
  const at::Tensor losses = at::cross_entropy_loss(logits, target, {}, at::Reduction::None).to(at::kFloat).contiguous();
  const at::Tensor smoothed =
      at::cross_entropy_loss(logits, target, {}, at::Reduction::None, -100, label_smoothing).to(at::kDouble);
  const at::Tensor right = logits.argmax(1).eq(target).to(at::kByte).contiguous();

  ExampleOutputs outputs;
  outputs.losses.assign(losses.const_data_ptr<float>(), losses.const_data_ptr<float>() + losses.numel());
  outputs.right.assign(right.const_data_ptr<std::uint8_t>(), right.const_data_ptr<std::uint8_t>() + right.numel());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (std::isfinite(outputs.losses[i])) continue;
    throw TrainingError(
        fmt::format("crest: the loss of example {} is not finite: lower training.lr, or look at this example", ids[i]));
  }
  outputs.mean_loss = smoothed.mean().item<double>();
  const auto count = static_cast<double>(ids.size());
  if (ids.size() > 1) outputs.loss_error = std::sqrt(smoothed.var().item<double>() / count);
  outputs.residuals = at::softmax(logits, 1).to(at::kFloat);
  auto residual = outputs.residuals.accessor<float, 2>();
  for (std::int64_t i = 0; i < logits.size(0); ++i) residual[i][targets[static_cast<std::size_t>(i)]] -= 1.0F;
  return outputs;
}

}  // namespace sage
