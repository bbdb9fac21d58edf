#include "training/learner.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/trace.h"
#include "data/sharding.h"
#include "training/checkpoint.h"

namespace sage {
namespace {

/// Steps on a GPU before their outcome is looked at: by then it is there, and the device has work for the meantime.
constexpr std::size_t steps_in_flight = 2;

std::vector<at::Tensor> buffers_of(const Module& network, bool floating_only) {
  std::vector<at::Tensor> buffers;
  for (const auto& buffer : network.named_buffers()) {
    if (!floating_only || buffer.tensor.is_floating_point()) buffers.push_back(buffer.tensor);
  }
  return buffers;
}

/// A part of a tensor that may be undefined.
at::Tensor rows_of(const at::Tensor& whole, const Range& range) {
  return whole.defined() ? whole.narrow(0, range.begin, range.size()) : whole;
}

/// Watches a forward pass for the first layer that makes something that is not finite.
class NonFiniteObserver : public LayerObserver {
 public:
  at::Tensor observe(const Layer& layer, const at::Tensor& input, at::Tensor output) override {
    ++position_;
    if (found_ == nullptr && !output.isfinite().all().item<bool>()) {
      found_ = &layer;
      found_at_ = position_;
      bad_input_ = !input.isfinite().all().item<bool>();
      bad_rows_ = output.isfinite().flatten(1).all(1).logical_not().cpu();
    }
    return output;
  }

  const Layer* found_ = nullptr;
  bool bad_input_ = false;
  at::Tensor bad_rows_;  // bool, one for each example
  std::int64_t found_at_ = 0, position_ = 0;
};

}  // namespace

void check_training_step(const TrainingConfig& config, at::Device device, int ranks) {
  to_precision(config.precision, device);
  if (!config.cuda_graph) return;
  if (!device.is_cuda()) throw ConfigError("training.cuda_graph needs a GPU, but this run computes on the CPU");
  if (ranks > 1) {
    throw ConfigError(
        fmt::format("training.cuda_graph records the steps of one rank alone, and this job has {}: the reduction of "
                    "gradients between ranks is not recorded; start one rank, or set training.cuda_graph=false",
                    ranks));
  }
}

struct Learner::Pending {
  Batch batch;
  std::string where;
  at::Tensor status;  // on the host
  std::optional<c10::Event> copied;
};

/// Where the values of one rank's part of a batch are first not finite.
struct Learner::Finding {
  std::int64_t position = std::numeric_limits<std::int64_t>::max();  // layers in the order of the forward pass
  std::string what;
  std::vector<std::int64_t> ids;
};

Learner::Learner(const Experiment& experiment, std::shared_ptr<Classifier> network, Communicator& communicator,
                 PhaseTimer& timer, std::optional<std::uint64_t> noise_seed)
    : config_(experiment.config.training),
      communicator_(communicator),
      timer_(timer),
      device_(experiment.device),
      precision_(to_precision(config_.precision, experiment.device)),
      network_(std::move(network)),
      loss_(make_loss(config_, experiment.class_counts(), device_)),
      parameters_(network_->named_parameters()),
      optimizer_(make_optimizer(parameters_, config_)),
      data_parallel_(std::make_unique<DataParallel>(network_->parameters(), buffers_of(*network_, false), communicator,
                                                    config_.bucket_mib << 20)),
      buffers_(buffers_of(*network_, true)),
      seed_(noise_seed.value_or(experiment.config.seed)),
      scaler_(precision_ == Precision::fp16, config_.loss_scale, device_),
      totals_(at::zeros({3}, at::TensorOptions(at::kDouble).device(device_))),
      last_(at::zeros({3}, at::TensorOptions(at::kDouble).device(device_))) {
  check_training_step(config_, device_, communicator.size());
  if (config_.cuda_graph) graph_ = std::make_unique<StepGraph>(cuda_graph_hooks(device_), device_);
  network_->train();
}

Learner::~Learner() = default;

void Learner::step(const Batch& batch, double learning_rate, const std::string& where, const Scored& scored) {
  if (!scored.recorded.defined()) noise_ = noise_of(batch.ids, steps_);
  // A recording knows no weights: weighted steps are launched anew.
  if (graph_ && !batch.weights.defined()) {
    const auto scope = timer_.measure("graph");
    graph_->run(batch.images, batch.labels, batch.global_count, learning_rate,
                [&](const at::Tensor& images, const at::Tensor& labels, const at::Tensor& rate) {
                  Batch recorded;
                  recorded.images = images;
                  recorded.labels = labels;
                  recorded.global_count = batch.global_count;
                  run_step(recorded, rate);
                });
  } else {
    run_step(batch, learning_rate, scored);
  }
  trace::count_step();
  ++steps_;
  note_outcome(batch, where);
}

at::Tensor Learner::noise_of(std::span<const std::int64_t> ids, std::int64_t step) {
  const std::int64_t count = static_cast<std::int64_t>(ids.size()), width = network_->noise_width();
  if (width == 0) return {};
  const at::Tensor drawn = at::empty({count, width}, at::TensorOptions(at::kFloat).pinned_memory(device_.is_cuda()));
  network_->write_noise(seed_, step, ids, drawn);
  if (device_.is_cpu()) return drawn;
  if (!noise_room_.defined() || noise_room_.size(0) < count) {
    noise_room_ = at::empty({count, width}, at::TensorOptions(at::kFloat).device(device_));
  }
  return noise_room_.narrow(0, 0, count).copy_(drawn, /*non_blocking=*/true);
}

at::Tensor Learner::logits_of(const at::Tensor& images, const at::Tensor& noise, Precision precision) {
  const Autocast autocast(precision, device_);
  const at::Tensor logits = network_->forward(images, noise);
  return at::isReducedFloatingType(logits.scalar_type()) ? logits.to(at::kFloat) : logits;
}

at::Tensor Learner::loss_of(const at::Tensor& logits, const Batch& batch, const Range& range) {
  const at::Tensor labels = rows_of(batch.labels, range), weights = rows_of(batch.weights, range);
  const at::Tensor other_labels = rows_of(batch.other_labels, range);
  at::Tensor loss;
  if (keeps_losses_) {
    const at::Tensor losses = loss_->of_examples(logits, labels);
    const at::Tensor values = losses.detach();
    example_losses_ = example_losses_.defined() ? at::cat({example_losses_, values}) : values;
    loss = (weights.defined() ? losses * weights.to(losses.scalar_type()) : losses).sum();
  } else {
    loss = loss_->sum(logits, labels, weights);
  }
  if (other_labels.defined()) {
    loss = loss * batch.own_part +
           loss_->sum(logits, other_labels, rows_of(batch.other_weights, range)) * (1.0 - batch.own_part);
  }
  const at::NoGradGuard no_gradients;
  const at::Tensor& counted = other_labels.defined() && batch.own_part < 0.5 ? other_labels : labels;
  const at::Tensor right = logits.argmax(1).eq(counted);
  if (watches_predictions_) right_.push_back(right);
  last_.narrow(0, 0, 2).add_(at::stack({loss.detach().to(at::kDouble), right.sum().to(at::kDouble)}));
  last_.select(0, 2).add_(static_cast<double>(range.size()));
  return loss;
}

void Learner::run_step(const Batch& batch, const LearningRate& rate, const Scored& scored) {
  at::Tensor saved_buffers = scored.saved_buffers;
  example_losses_ = at::Tensor();
  right_.clear();
  {
    const at::NoGradGuard no_gradients;
    data_parallel_->zero_gradients();
    last_.zero_();
    if (!saved_buffers.defined() && !buffers_.empty()) saved_buffers = flat_buffers();
  }
  data_parallel_->prepare_forward();
  // Gradients are averaged over the ranks: with this factor their average is the gradient of the global mean, however
  // unevenly the batch is split.
  const double factor = static_cast<double>(communicator_.size()) / static_cast<double>(batch.global_count);
  const auto parts = static_cast<int>(config_.accumulate);
  for (int part = 0; part < parts; ++part) {
    const Range range = balanced_range(batch.images.size(0), part, parts);
    at::Tensor loss;
    {
      const auto scope = timer_.measure("forward");
      const at::Tensor logits = scored.recorded.defined()
                                    ? scored.recorded
                                    : logits_of(rows_of(batch.images, range), rows_of(noise_, range), precision_);
      loss = loss_of(logits, batch, range);
    }
    const auto scope = timer_.measure("backward");
    if (part == parts - 1) data_parallel_->prepare_backward(loss);
    loss.backward(scaler_.seed(loss, factor));
  }
  const auto scope = timer_.measure("optimizer");
  data_parallel_->finish_step();
  update(rate, saved_buffers);
}

void Learner::update(const LearningRate& rate, const at::Tensor& saved_buffers) {
  const at::NoGradGuard no_gradients;
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (const auto& parameter : parameters_) gradients.push_back(parameter.tensor.grad());
  // Every rank holds the same reduced gradients, so all find the same without talking.
  scaler_.unscale(gradients);
  if (config_.clip_norm > 0) clip_gradients(gradients, config_.clip_norm);
  optimizer_->step(rate, scaler_.found_inf());
  scaler_.update();
  // A step that is skipped leaves no trace: not in the totals, nor in the running statistics, where one NaN would stay
  // for ever. The CPU knows at once; on a GPU the question is answered there.
  const at::Tensor skipped = scaler_.found_inf().ne(0);
  if (device_.is_cpu() && !skipped.item<bool>()) {
    totals_.add_(last_);
    return;
  }
  totals_.add_(last_.masked_fill(skipped, 0.0));
  if (!buffers_.empty()) set_buffers(at::where(skipped, saved_buffers, flat_buffers()));
}

void Learner::note_outcome(const Batch& batch, const std::string& where) {
  if (device_.is_cpu()) {
    const float* status = scaler_.status().const_data_ptr<float>();
    look_at(status[0] != 0.0F, status[1], batch, where);
    return;
  }
  auto pending = std::make_unique<Pending>(
      Pending{batch, where, at::empty({2}, at::TensorOptions(at::kFloat).pinned_memory(true)), std::nullopt});
  pending->status.copy_(scaler_.status(), /*non_blocking=*/true);
  const c10::impl::VirtualGuardImpl streams(device_.type());
  pending->copied.emplace(device_.type());
  pending->copied->record(streams.getStream(device_));
  pending_.push_back(std::move(pending));
  while (pending_.size() > steps_in_flight) look_at_oldest();
}

void Learner::look_at_oldest() {
  const std::unique_ptr<Pending> oldest = std::move(pending_.front());
  pending_.pop_front();
  oldest->copied->synchronize();
  const float* status = oldest->status.const_data_ptr<float>();
  look_at(status[0] != 0.0F, status[1], oldest->batch, oldest->where);
}

void Learner::look_at(bool skipped, float scale, const Batch& batch, const std::string& where) {
  ++looked_at_;
  if (!skipped) {
    skipped_in_a_row_ = 0;
    return;
  }
  ++skipped_;
  if (scaler_.is_scaling() && scale >= 1.0F) {
    log::info("{}: the gradients overflow in fp16; the step is skipped and the loss scale lowered to {:g}", where,
              scale);
    return;
  }
  ++skipped_in_a_row_;
  if (config_.non_finite == "stop" || skipped_in_a_row_ >= config_.non_finite_limit) stop(batch, where);
  log::warning("{}: the loss or a gradient is not finite; the step is skipped ({} so far, {} in a row)", where,
               skipped_, skipped_in_a_row_);
}

void Learner::settle() {
  while (!pending_.empty()) look_at_oldest();
  data_parallel_->broadcast_buffers();
}

Learner::Finding Learner::find_first_bad(const Batch& batch) {
  const at::NoGradGuard no_gradients;
  Finding finding;
  const auto layers = named_layers(*network_);
  // The pass is one of training: it would leave what is not finite in the running statistics.
  std::vector<at::Tensor> saved_buffers;
  for (const auto& buffer : network_->named_buffers()) saved_buffers.push_back(buffer.tensor.clone());
  const at::Tensor noise = noise_of(batch.ids, looked_at_ - 1);
  const auto parts = static_cast<int>(config_.accumulate);
  for (int part = 0; part < parts; ++part) {
    NonFiniteObserver observer;
    for (const auto& [name, layer] : layers) layer->set_observer(&observer);
    const Range range = balanced_range(batch.images.size(0), part, parts);
    const at::Tensor logits = logits_of(rows_of(batch.images, range), rows_of(noise, range), precision_);
    for (const auto& [name, layer] : layers) layer->set_observer(nullptr);
    at::Tensor bad_rows = observer.bad_rows_;
    std::int64_t position = observer.found_at_;
    std::string what;
    if (observer.found_ == nullptr) {
      bad_rows =
          loss_->of_examples(logits, batch.labels.narrow(0, range.begin, range.size())).isfinite().logical_not().cpu();
      if (!bad_rows.any().item<bool>()) continue;
      position = observer.position_ + 1;
      what = "the loss";
    } else {
      for (const auto& [name, layer] : layers) {
        if (layer == observer.found_) what = fmt::format("the output of layer '{}'", name);
      }
      const auto& weight = observer.found_->weight();
      if (observer.bad_input_) {
        what += " (as is its input)";
      } else if (!weight.isfinite().all().item<bool>()) {
        what += " (as is its weight)";
      }
    }
    if (position > finding.position) continue;
    if (position < finding.position) finding = {position, what, {}};
    for (std::int64_t row = 0; row < range.size(); ++row) {
      if (bad_rows[row].item<bool>()) finding.ids.push_back(batch.ids[static_cast<std::size_t>(range.begin + row)]);
    }
  }
  const auto buffers = network_->named_buffers();
  for (std::size_t i = 0; i < buffers.size(); ++i) buffers[i].tensor.copy_(saved_buffers[i]);
  return finding;
}

void Learner::stop(const Batch& batch, const std::string& where) {
  // ALL ranks are here. The batch is run forward again; the rank whose values go bad in the earliest layer speaks.
  const Finding mine = find_first_bad(batch);
  constexpr std::size_t most = 8;  // ids named by each rank
  std::string ids = fmt::format(
      "{}", fmt::join(mine.ids.begin(), mine.ids.begin() + static_cast<std::ptrdiff_t>(std::min(mine.ids.size(), most)),
                      ", "));
  if (mine.ids.size() > most) ids += fmt::format(" and {} more", mine.ids.size() - most);
  const auto positions = communicator_.all_gather_strings(std::to_string(mine.position));
  const auto causes = communicator_.all_gather_strings(mine.what);
  const auto examples = communicator_.all_gather_strings(ids);
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  for (const auto& position : positions) first = std::min<std::int64_t>(first, std::stoll(position));
  std::string what, all_ids;
  for (std::size_t rank = 0; rank < positions.size(); ++rank) {
    if (causes[rank].empty() || std::stoll(positions[rank]) != first) continue;
    if (what.empty()) what = fmt::format("{} on rank {} is the first that is not finite", causes[rank], rank);
    if (examples[rank].empty()) continue;
    all_ids += fmt::format("{}{} (rank {})", all_ids.empty() ? "" : "; ", examples[rank], rank);
  }
  if (what.empty()) {
    const auto in_batch = communicator_.all_gather_strings(
        batch.ids.empty() ? ""
                          : fmt::format("{} to {}", *std::min_element(batch.ids.begin(), batch.ids.end()),
                                        *std::max_element(batch.ids.begin(), batch.ids.end())));
    what = "layers and losses are finite";
    for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
      if (parameter->tensor.grad().isfinite().all().item<bool>()) continue;
      what += fmt::format(", but the gradient of '{}' is not", parameter->name);
      break;
    }
    std::string ranges;
    for (std::size_t rank = 0; rank < in_batch.size(); ++rank) {
      if (!in_batch[rank].empty()) ranges += fmt::format("; ids {} (rank {})", in_batch[rank], rank);
    }
    what += ranges;
  } else if (!all_ids.empty()) {
    what += fmt::format(", for the examples with ids {}", all_ids);
  }
  const auto in_a_row = std::exchange(skipped_in_a_row_, 0);  // whoever goes on from here counts anew
  pending_.clear();
  looked_at_ = steps_;
  // The same on all ranks, so that each can still do what all do together, and one prints it.
  throw TrainingError(fmt::format(
      "{}: the loss or a gradient is not finite{}: {}. Look at these examples, or lower training.lr{}", where,
      in_a_row > 1 ? fmt::format(", as in {} steps in a row", in_a_row) : "", what,
      config_.non_finite == "stop" ? "; training.non_finite=skip leaves such steps out"
                                   : "; training.non_finite_limit is how many such steps in a row are left out"));
}

double Learner::last_loss() const {
  const at::Tensor host = last_.cpu();
  const double* values = host.const_data_ptr<double>();
  return values[2] > 0 ? values[0] / values[2] : std::numeric_limits<double>::quiet_NaN();
}

EpochTotals Learner::take_totals() {
  communicator_.all_reduce_sum(totals_);
  const at::Tensor host = totals_.cpu();  // itself on the CPU
  const double* values = host.const_data_ptr<double>();
  EpochTotals result;
  if (values[2] > 0) result = {values[0] / values[2], values[1] / values[2], static_cast<std::int64_t>(values[2])};
  totals_.zero_();
  return result;
}

std::vector<NamedTensor> Learner::state() const {
  require(pending_.empty(), "a learner's state is asked for before settle()");
  std::vector<NamedTensor> state{{"totals", totals_.cpu().clone()},
                                 {"skipped.total", at::full({1}, skipped_, at::kLong)},
                                 {"skipped.in_a_row", at::full({1}, skipped_in_a_row_, at::kLong)}};
  for (const auto& [name, tensor] : scaler_.state()) state.push_back({name, tensor.cpu().clone()});
  if (network_->noise_width() > 0) state.push_back({"steps", at::full({1}, steps_, at::kLong)});
  return state;
}

void Learner::load_state(std::span<const NamedTensor> state) {
  const std::vector<NamedTensor> mine = this->state();
  load_tensors(mine, state, "the state of training");
  totals_.copy_(mine[0].tensor);
  skipped_ = mine[1].tensor.item<std::int64_t>();
  skipped_in_a_row_ = mine[2].tensor.item<std::int64_t>();
  const auto scaler = scaler_.state();
  for (std::size_t i = 0; i < scaler.size(); ++i) scaler[i].tensor.copy_(mine[3 + i].tensor);
  if (network_->noise_width() > 0) steps_ = looked_at_ = mine.back().tensor.item<std::int64_t>();
}

}  // namespace sage
