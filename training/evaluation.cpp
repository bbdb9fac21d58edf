#include "training/evaluation.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <limits>

#include "data/sharding.h"
#include "training/autocast.h"

namespace sage {

EvaluationReport evaluate(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                          std::span<const std::int64_t> ids, std::int64_t batch_size, Communicator& communicator,
                          const std::string& precision) {
  const at::NoGradGuard no_gradients;
  const Precision autocast_precision = to_precision(precision, images.device());
  const bool was_training = network.is_training();
  network.eval();
  const auto classes = network.class_count();
  // [loss, then per class: examples, right predictions]
  at::Tensor sums = at::zeros({1 + 2 * classes}, at::TensorOptions(at::kDouble).device(images.device()));
  const Range mine = balanced_range(static_cast<std::int64_t>(ids.size()), communicator.rank(), communicator.size());
  for (std::int64_t begin = mine.begin; begin < mine.end; begin += batch_size) {
    const auto batch =
        ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(std::min(batch_size, mine.end - begin)));
    std::vector<std::int64_t> targets;
    for (auto id : batch) targets.push_back(labels[static_cast<std::size_t>(id)]);
    const at::Tensor target = to_device(targets, images.device());
    at::Tensor logits;
    {
      const Autocast autocast(autocast_precision, images.device());
      logits = network.forward(images.images_of(batch));
    }
    if (at::isReducedFloatingType(logits.scalar_type())) logits = logits.to(at::kFloat);
    sums.select(0, 0).add_(at::cross_entropy_loss(logits, target, {}, at::Reduction::Sum).to(at::kDouble));
    const at::Tensor correct = logits.argmax(1).eq(target).to(at::kDouble);
    sums.narrow(0, 1, classes).add_(at::bincount(target, {}, classes));
    sums.narrow(0, 1 + classes, classes).add_(at::bincount(target, correct, classes));
  }
  network.train(was_training);
  communicator.all_reduce_sum(sums);

  const at::Tensor host = sums.cpu();
  const double* values = host.const_data_ptr<double>();
  EvaluationReport result;
  double correct = 0.0;
  for (std::int64_t c = 0; c < classes; ++c) {
    const double count = values[1 + c], right = values[1 + classes + c];
    result.examples += static_cast<std::int64_t>(count);
    correct += right;
    result.class_accuracy.push_back(count > 0 ? right / count : std::numeric_limits<double>::quiet_NaN());
  }
  if (result.examples > 0) {
    result.mean.loss = values[0] / static_cast<double>(result.examples);
    result.mean.accuracy = correct / static_cast<double>(result.examples);
  }
  return result;
}

}  // namespace sage
