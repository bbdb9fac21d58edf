#include "training/evaluation.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <limits>
#include <numeric>

#include "data/sharding.h"
#include "training/autocast.h"

namespace sage {

double f1_macro(const at::Tensor& confusion) {
  const at::Tensor rows = confusion.sum(1), columns = confusion.sum(0);
  double sum = 0.0;
  std::int64_t classes = 0;
  for (std::int64_t c = 0; c < confusion.size(0); ++c) {
    const auto occurs = (rows[c] + columns[c]).item<std::int64_t>();
    if (occurs == 0) continue;
    sum += 2.0 * confusion[c][c].item<double>() / static_cast<double>(occurs);
    ++classes;
  }
  return classes > 0 ? sum / static_cast<double>(classes) : std::numeric_limits<double>::quiet_NaN();
}

EvaluationReport evaluate(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                          std::span<const std::int64_t> ids, std::int64_t batch_size, Communicator& communicator,
                          const std::string& precision) {
  const at::NoGradGuard no_gradients;
  const Precision autocast_precision = to_precision(precision, images.device());
  const bool was_training = network.is_training();
  network.eval();
  const auto classes = network.class_count();
  const auto options = at::TensorOptions(at::kDouble).device(images.device());
  at::Tensor loss = at::zeros({1}, options), confusion = at::zeros({classes * classes}, options);
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
    loss.add_(at::cross_entropy_loss(logits, target, {}, at::Reduction::Sum).to(at::kDouble));
    confusion.add_(at::bincount(target * classes + logits.argmax(1), {}, classes * classes));
  }
  network.train(was_training);
  const at::Tensor sums = at::cat({loss, confusion});
  communicator.all_reduce_sum(sums);

  const at::Tensor host = sums.cpu();
  EvaluationReport result;
  result.confusion = host.narrow(0, 1, classes * classes).to(at::kLong).view({classes, classes});
  const auto* counts = result.confusion.const_data_ptr<std::int64_t>();
  std::int64_t right = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    const std::int64_t count = std::accumulate(counts + c * classes, counts + (c + 1) * classes, std::int64_t{0});
    const std::int64_t right_of_class = counts[c * classes + c];
    result.examples += count;
    right += right_of_class;
    result.mean.class_accuracy.push_back(count > 0 ? static_cast<double>(right_of_class) / static_cast<double>(count)
                                                   : std::numeric_limits<double>::quiet_NaN());
  }
  result.mean.f1_macro = f1_macro(result.confusion);
  if (result.examples > 0) {
    result.mean.loss = host[0].item<double>() / static_cast<double>(result.examples);
    result.mean.accuracy = static_cast<double>(right) / static_cast<double>(result.examples);
  }
  return result;
}

}  // namespace sage
