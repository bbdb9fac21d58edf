#include "training/learner.h"

#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/log.h"

namespace sage {
namespace {

std::vector<at::Tensor> buffers_of(const Module& network) {
  std::vector<at::Tensor> buffers;
  for (const auto& buffer : network.named_buffers()) buffers.push_back(buffer.tensor);
  return buffers;
}

}  // namespace

Learner::Learner(const Experiment& experiment, std::shared_ptr<Classifier> network, Communicator& communicator,
                 PhaseTimer& timer)
    : config_(experiment.config.training),
      communicator_(communicator),
      timer_(timer),
      network_(std::move(network)),
      optimizer_(make_optimizer(network_->named_parameters(), config_)),
      data_parallel_(std::make_unique<DataParallel>(network_->parameters(), buffers_of(*network_), communicator,
                                                    config_.bucket_mib << 20)) {
  network_->train();
  totals_.loss_and_correct = at::zeros({2}, at::TensorOptions(at::kDouble).device(experiment.device));
}

bool Learner::step(const Batch& batch, double learning_rate, const std::string& where) {
  const auto local_count = static_cast<std::int64_t>(batch.ids.size());
  data_parallel_->zero_gradients();
  at::Tensor losses, loss_sum;
  {
    const auto scope = timer_.measure("forward");
    data_parallel_->prepare_forward();
    const at::Tensor logits = network_->forward(batch.images);
    losses = at::cross_entropy_loss(logits, batch.labels, {}, at::Reduction::None, -100, config_.label_smoothing);
    loss_sum = losses.sum();
    const at::NoGradGuard no_gradients;
    totals_.loss_and_correct.add_(
        at::stack({loss_sum.detach().to(at::kDouble), logits.argmax(1).eq(batch.labels).sum().to(at::kDouble)}));
  }
  {
    const auto scope = timer_.measure("backward");
    // Gradients are averaged over the ranks: with this factor their average is the gradient of the global mean, however
    // unevenly the batch is split.
    const at::Tensor loss =
        loss_sum * (static_cast<double>(communicator_.size()) / static_cast<double>(batch.global_count));
    data_parallel_->prepare_backward(loss);
    loss.backward();
    data_parallel_->finish_step();
  }
  last_loss_sum_ = loss_sum.detach();
  last_count_ = local_count;
  totals_.examples += batch.global_count;

  // Every rank holds the same reduced gradients, so all decide alike without talking. On a GPU this is where the host
  // waits for the step: forward and backward are then the times of their launches.
  bool finite = false;
  {
    const auto scope = timer_.measure("finite_check");
    finite = gradients_are_finite();
  }
  if (!finite) {
    if (config_.non_finite == "stop") stop(batch, losses.detach(), where);
    ++skipped_steps_;
    log::warning("{}: the gradients are not finite; the step is skipped ({} so far)", where, skipped_steps_);
    return false;
  }
  const auto scope = timer_.measure("optimizer");
  optimizer_->step(learning_rate);
  return true;
}

bool Learner::gradients_are_finite() const {
  const at::NoGradGuard no_gradients;
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : network_->parameters()) gradients.push_back(parameter.grad());
  return std::isfinite(at::stack(at::_foreach_norm(gradients)).sum().item<double>());
}

void Learner::stop(const Batch& batch, const at::Tensor& losses, const std::string& where) {
  // ALL ranks are here. Each names its examples with such a loss; the lowest rank that has any reports them all.
  const at::Tensor host = losses.cpu().to(at::kDouble);
  std::vector<std::int64_t> ids;
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    if (!std::isfinite(host[static_cast<std::int64_t>(i)].item<double>())) ids.push_back(batch.ids[i]);
  }
  constexpr std::size_t most = 20;  // named by each rank
  std::string mine = fmt::format("{}", fmt::join(ids.begin(), ids.begin() + std::min(ids.size(), most), ", "));
  if (ids.size() > most) mine += fmt::format(" and {} more", ids.size() - most);
  std::string all;
  for (const auto& text : communicator_.all_gather_strings(mine)) {
    if (!text.empty()) all += (all.empty() ? "" : ", ") + text;
  }
  communicator_.all_or_none([&] {
    throw TrainingError(
        fmt::format("{}: {}. Lower training.lr, or set training.non_finite=skip to leave such steps out", where,
                    all.empty() ? "a gradient is not finite, though every loss is"
                                : fmt::format("the loss is not finite for the examples with ids {}", all)));
  });
  throw InternalError("unreachable");
}

double Learner::last_loss() const {
  if (last_count_ == 0) return std::numeric_limits<double>::quiet_NaN();
  return last_loss_sum_.item<double>() / static_cast<double>(last_count_);
}

EpochTotals Learner::take_totals() {
  communicator_.all_reduce_sum(totals_.loss_and_correct);
  const at::Tensor host = totals_.loss_and_correct.cpu();
  EpochTotals result;
  result.examples = totals_.examples;
  if (result.examples > 0) {
    result.loss = host[0].item<double>() / static_cast<double>(result.examples);
    result.accuracy = host[1].item<double>() / static_cast<double>(result.examples);
  }
  totals_.loss_and_correct.zero_();
  totals_.examples = 0;
  return result;
}

}  // namespace sage
