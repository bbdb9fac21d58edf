#include "training/dropout/dropout.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "data/sharding.h"
#include "selection/quota.h"

namespace sage {
namespace {

/// Rows of a batch of images, in its memory order.
at::Tensor rows_of(const at::Tensor& images, const at::Tensor& rows) {
  if (images.dim() == 4 && !images.is_contiguous() && images.is_contiguous(at::MemoryFormat::ChannelsLast)) {
    return images.permute({0, 2, 3, 1}).index_select(0, rows).permute({0, 3, 1, 2});
  }
  return images.index_select(0, rows);
}

}  // namespace

ProgressiveDropout::ProgressiveDropout(const Experiment& experiment, Communicator& communicator, PhaseTimer& timer,
                                       std::int64_t epochs)
    : experiment_(experiment),
      config_(experiment.config.dropout),
      communicator_(communicator),
      timer_(timer),
      mode_(to_dropout_mode(config_.mode)),
      rule_(to_hard_rule(config_)),
      revision_(revision_epoch(config_, epochs)),
      class_count_(experiment.dataset.class_count),
      offered_of_class_(static_cast<std::size_t>(class_count_), 0),
      hard_of_class_(offered_of_class_),
      kept_of_class_(offered_of_class_) {
  check_dropout(experiment);
  const TrainingConfig& training = experiment.config.training;
  const Precision step_precision = to_precision(training.precision, experiment.device);
  scoring_.precision =
      config_.score_precision == "auto" ? step_precision : to_precision(config_.score_precision, experiment.device);
  scoring_.in_train_mode = config_.score_in == "train";
  // What the step would compute again where all is kept.
  scoring_.record = scoring_.in_train_mode && scoring_.precision == step_precision && training.accumulate == 1 &&
                    !config_.accumulate_kept;
  if (mode_ == DropoutMode::apd) {
    difficulty_.emplace(experiment.class_counts(), config_.ema_alpha, config_.epsilon);
  }
  if (mode_ == DropoutMode::infobatch) {
    scores_.assign(experiment.labels.size(), std::numeric_limits<float>::quiet_NaN());
    next_scores_ = scores_;
    weight_of_id_.assign(scores_.size(), 1.0F);
  }
}

std::vector<std::int64_t> ProgressiveDropout::labels_of(std::span<const std::int64_t> ids) const {
  std::vector<std::int64_t> labels;
  labels.reserve(ids.size());
  for (const std::int64_t id : ids) labels.push_back(experiment_.labels[static_cast<std::size_t>(id)]);
  return labels;
}

std::span<const std::int64_t> ProgressiveDropout::begin_epoch(std::span<const std::int64_t> ids, std::int64_t epoch) {
  if (mode_ != DropoutMode::infobatch || !drops_in(epoch)) return ids;
  pruned_ = prune_epoch(ids, scores_, config_.prune, experiment_.config.seed, epoch);
  for (std::size_t i = 0; i < pruned_.ids.size(); ++i) {
    weight_of_id_[static_cast<std::size_t>(pruned_.ids[i])] = pruned_.weights[i];
  }
  offered_ = static_cast<std::int64_t>(ids.size());
  offered_of_class_ = count_classes(labels_of(ids), class_count_);
  kept_of_class_ = count_classes(labels_of(pruned_.ids), class_count_);
  return pruned_.ids;
}

std::int64_t ProgressiveDropout::step(Learner& learner, const Loader& loader, Batch batch, const BatchPlace& place,
                                      double learning_rate, const std::string& where) {
  if (!drops_in(place.epoch)) {
    offered_ += batch.global_count;
    return train(learner, batch, learning_rate, where);
  }
  if (mode_ == DropoutMode::infobatch) return step_of_pruned(learner, std::move(batch), learning_rate, where);

  Scored scored;
  Gathered all;
  std::vector<std::int64_t> kept;  // positions in the global batch
  {
    // On a GPU the step before may still be at work: not a part of this.
    const auto scope = timer_.measure_to_the_end("scoring");
    if (mode_ != DropoutMode::srd) scored = learner.score(batch, scoring_);
    all = gather(batch, scored.logits);
    const KeptMask mask = choose(all.batch, place);
    note(all.batch, mask);
    kept_ids_.clear();
    for (std::size_t i = 0; i < mask.size(); ++i) {
      if (mask[i] == 0) continue;
      kept.push_back(static_cast<std::int64_t>(i));
      kept_ids_.push_back(all.batch.ids[i]);
    }
  }
  // The step that what is not finite leads to is left out, and must leave no trace in the running statistics.
  if (!all.is_finite) {
    learner.undo(scored);
    scored = {};
  }
  if (kept.empty()) ++empty_batches_;
  if (config_.accumulate_kept) {
    pool_ids_.insert(pool_ids_.end(), kept_ids_.begin(), kept_ids_.end());
    for (const std::int64_t position : kept) {
      if (!all.weights.empty()) pool_weights_.push_back(all.weights[static_cast<std::size_t>(position)]);
    }
    return train_from_pool(learner, loader, place.is_last, learning_rate, where);
  }
  if (kept.empty()) return 0;  // on ALL ranks
  if (static_cast<std::int64_t>(kept.size()) == batch.global_count) {
    return train(learner, batch, learning_rate, where, scored);
  }
  scored = {};  // its graph first, then that of the step
  return train(learner, own_part(batch, loader, all, kept), learning_rate, where);
}

std::int64_t ProgressiveDropout::train(Learner& learner, const Batch& batch, double learning_rate,
                                       const std::string& where, const Scored& scored, bool to_the_end) {
  const auto scope = to_the_end ? timer_.measure_to_the_end("training") : timer_.measure("training");
  learner.step(batch, learning_rate, where, scored.recorded.defined() ? scored : Scored{});
  ++updates_;
  kept_ += batch.global_count;
  return batch.global_count;
}

ProgressiveDropout::Gathered ProgressiveDropout::gather(const Batch& batch, const at::Tensor& logits) {
  const at::NoGradGuard no_gradients;
  const Range mine = balanced_range(batch.global_count, communicator_.rank(), communicator_.size());
  require(mine.size() == static_cast<std::int64_t>(batch.ids.size()), "dropout: a batch that is not cut evenly");
  // Every rank fills in its own rows, and zeros are added to them: exact, and the same bits everywhere. Ids are whole
  // numbers far below 2^53.
  at::Tensor rows = at::zeros({batch.global_count, 4}, at::TensorOptions(at::kDouble).device(communicator_.device()));
  at::Tensor own = rows.narrow(0, mine.begin, mine.size());
  own.select(1, 0).copy_(to_device(batch.ids, experiment_.device));
  if (logits.defined()) {
    const at::Tensor p = at::softmax(logits, 1).gather(1, batch.labels.unsqueeze(1)).squeeze(1).to(at::kDouble);
    own.select(1, 1).copy_(p.nan_to_num(-1.0, -1.0, -1.0));
    own.select(1, 2).copy_(logits.argmax(1).eq(batch.labels));
  }
  if (batch.weights.defined()) own.select(1, 3).copy_(batch.weights);
  communicator_.all_reduce_sum(rows);

  const at::Tensor host = rows.cpu();
  const auto* values = host.const_data_ptr<double>();
  Gathered all;
  for (std::int64_t i = 0; i < batch.global_count; ++i, values += 4) {
    const double p_true = values[1];
    all.batch.ids.push_back(static_cast<std::int64_t>(values[0]));
    all.batch.p_true.push_back(p_true);
    all.is_finite = all.is_finite && p_true >= 0.0;
    const bool hard = logits.defined() && is_hard(p_true, values[2] != 0.0, config_.threshold, rule_);
    all.batch.is_hard.push_back(hard ? 1 : 0);
    if (batch.weights.defined()) all.weights.push_back(static_cast<float>(values[3]));
  }
  all.batch.labels = labels_of(all.batch.ids);
  return all;
}

KeptMask ProgressiveDropout::choose(const ScoredBatch& batch, const BatchPlace& place) const {
  const DrawKey key{experiment_.config.seed, place.epoch, place.batch};
  switch (mode_) {
    case DropoutMode::dbpd:
      return batch.is_hard;
    case DropoutMode::smrd:
      return keep_random(batch.ids, batch.hard_count(), key);
    case DropoutMode::srd:
      return keep_random(batch.ids,
                         scheduled_count(config_.gamma, place.epoch, static_cast<std::int64_t>(batch.size())), key);
    case DropoutMode::psmrd:
      return config_.quota == "none" ? batch.is_hard : keep_stratified(batch, class_count_);
    case DropoutMode::apd:
      return keep_adaptive(batch, difficulty_->proportions(), key);
    default:
      throw InternalError("this mode of dropout does not choose within a batch");
  }
}

void ProgressiveDropout::note(const ScoredBatch& batch, const KeptMask& mask) {
  offered_ += static_cast<std::int64_t>(batch.size());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const auto label = static_cast<std::size_t>(batch.labels[i]);
    ++offered_of_class_[label];
    hard_of_class_[label] += batch.is_hard[i];
    kept_of_class_[label] += mask[i];
  }
}

Batch ProgressiveDropout::own_part(const Batch& batch, const Loader& loader, const Gathered& all,
                                   std::span<const std::int64_t> kept) const {
  const int rank = communicator_.rank(), ranks = communicator_.size();
  const Range held = balanced_range(batch.global_count, rank, ranks);  // of the global batch, in batch.images
  const auto first = std::lower_bound(kept.begin(), kept.end(), held.begin);
  const auto last = std::lower_bound(kept.begin(), kept.end(), held.end);
  Range part{first - kept.begin(), last - kept.begin()};  // of `kept`
  if (config_.balance == "redistribute") {
    part = balanced_range(static_cast<std::int64_t>(kept.size()), rank, ranks);
  }
  // Both are runs of the global batch, so what comes from elsewhere lies before or behind what is held.
  std::vector<std::int64_t> rows, before, behind;
  Batch own;
  std::vector<float> weights;
  for (std::int64_t i = part.begin; i < part.end; ++i) {
    const std::int64_t position = kept[static_cast<std::size_t>(i)];
    const std::int64_t id = all.batch.ids[static_cast<std::size_t>(position)];
    own.ids.push_back(id);
    if (!all.weights.empty()) weights.push_back(all.weights[static_cast<std::size_t>(position)]);
    if (position < held.begin) {
      before.push_back(id);
    } else if (position >= held.end) {
      behind.push_back(id);
    } else {
      rows.push_back(position - held.begin);
    }
  }
  std::vector<at::Tensor> images;
  if (!before.empty()) images.push_back(loader.images_of(before).to(batch.images.scalar_type()));
  if (!rows.empty() || (before.empty() && behind.empty())) {
    images.push_back(rows_of(batch.images, to_device(rows, experiment_.device)));
  }
  if (!behind.empty()) images.push_back(loader.images_of(behind).to(batch.images.scalar_type()));
  own.images = images.size() == 1 ? images[0] : at::cat(images);
  own.labels = to_device(labels_of(own.ids), experiment_.device);
  if (!all.weights.empty()) own.weights = to_device(weights, experiment_.device);
  own.global_count = static_cast<std::int64_t>(kept.size());
  own.step = batch.step;
  return own;
}

Batch ProgressiveDropout::batch_of(const Loader& loader, at::ScalarType type, std::span<const std::int64_t> ids,
                                   std::span<const float> weights) const {
  const Range mine = balanced_range(static_cast<std::int64_t>(ids.size()), communicator_.rank(), communicator_.size());
  const auto begin = static_cast<std::size_t>(mine.begin), size = static_cast<std::size_t>(mine.size());
  const auto own = ids.subspan(begin, size);
  Batch batch;
  batch.ids.assign(own.begin(), own.end());
  batch.images = loader.images_of(own).to(type);
  batch.labels = to_device(labels_of(own), experiment_.device);
  if (!weights.empty()) batch.weights = to_device(weights.subspan(begin, size), experiment_.device);
  batch.global_count = static_cast<std::int64_t>(ids.size());
  return batch;
}

std::int64_t ProgressiveDropout::train_from_pool(Learner& learner, const Loader& loader, bool is_last,
                                                 double learning_rate, const std::string& where) {
  std::int64_t trained = 0;
  const auto pooled = [&] { return static_cast<std::int64_t>(pool_ids_.size()); };
  while (pooled() >= experiment_.global_batch || (is_last && pooled() > 0)) {
    const auto count = static_cast<std::size_t>(std::min(pooled(), experiment_.global_batch));
    const auto weights = std::span(pool_weights_).first(pool_weights_.empty() ? 0 : count);
    const at::ScalarType type = learner.network().head().weight().scalar_type();
    trained += train(learner, batch_of(loader, type, std::span(pool_ids_).first(count), weights), learning_rate, where);
    pool_ids_.erase(pool_ids_.begin(), pool_ids_.begin() + static_cast<std::ptrdiff_t>(count));
    if (!pool_weights_.empty()) {
      pool_weights_.erase(pool_weights_.begin(), pool_weights_.begin() + static_cast<std::ptrdiff_t>(count));
    }
  }
  return trained;
}

std::int64_t ProgressiveDropout::step_of_pruned(Learner& learner, Batch batch, double learning_rate,
                                                const std::string& where) {
  std::vector<float> weights;
  for (const std::int64_t id : batch.ids) weights.push_back(weight_of_id_[static_cast<std::size_t>(id)]);
  const at::Tensor rescaled = to_device(weights, experiment_.device);
  batch.weights = batch.weights.defined() ? batch.weights * rescaled : rescaled;
  learner.keep_example_losses(true);
  // Its losses are read back at once: who waits for them waits for the step.
  const std::int64_t trained = train(learner, batch, learning_rate, where, {}, /*to_the_end=*/true);
  learner.keep_example_losses(false);

  const auto scope = timer_.measure_to_the_end("scoring");
  const at::NoGradGuard no_gradients;
  const Range mine = balanced_range(batch.global_count, communicator_.rank(), communicator_.size());
  at::Tensor rows = at::zeros({batch.global_count, 2}, at::TensorOptions(at::kDouble).device(communicator_.device()));
  at::Tensor own = rows.narrow(0, mine.begin, mine.size());
  own.select(1, 0).copy_(to_device(batch.ids, experiment_.device));
  own.select(1, 1).copy_(learner.example_losses());
  communicator_.all_reduce_sum(rows);
  const at::Tensor host = rows.cpu();
  const auto* values = host.const_data_ptr<double>();
  kept_ids_.clear();
  for (std::int64_t i = 0; i < batch.global_count; ++i, values += 2) {
    kept_ids_.push_back(static_cast<std::int64_t>(values[0]));
    next_scores_[static_cast<std::size_t>(kept_ids_.back())] = static_cast<float>(values[1]);
  }
  return trained;
}

DropoutRecord ProgressiveDropout::end_epoch(std::int64_t epoch) {
  DropoutRecord record;
  record.everything = !drops_in(epoch);
  record.offered = std::exchange(offered_, 0);
  record.kept = std::exchange(kept_, 0);
  record.updates = std::exchange(updates_, 0);
  record.empty_batches = std::exchange(empty_batches_, 0);
  if (difficulty_) {
    difficulty_->update(hard_of_class_, offered_of_class_);
    record.difficulty = difficulty_->difficulty();
    record.proportion = difficulty_->proportions();
  }
  const std::vector<std::int64_t> none(static_cast<std::size_t>(class_count_), 0);
  auto offered = std::exchange(offered_of_class_, none), hard = std::exchange(hard_of_class_, none),
       kept = std::exchange(kept_of_class_, none);
  if (!record.everything) {
    record.offered_of_class = std::move(offered);
    record.hard_of_class = std::move(hard);
    record.kept_of_class = std::move(kept);
  }
  scores_ = next_scores_;
  std::fill(weight_of_id_.begin(), weight_of_id_.end(), 1.0F);
  return record;
}

}  // namespace sage
