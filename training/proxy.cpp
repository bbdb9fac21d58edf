#include "training/proxy.h"

#include <algorithm>

#include "core/log.h"
#include "core/trace.h"
#include "models/weights.h"

namespace sage {

const std::string& Proxy::model_name() const {
  const Config& config = experiment_.config;
  return config.selection.proxy.model.empty() ? config.model.name : config.selection.proxy.model;
}

Classifier& Proxy::network(const std::function<void()>& save) {
  if (network_ && !learner_) return *network_;
  const std::uint64_t seed = derived_seed(experiment_.config.seed, "proxy");
  if (!network_) network_ = make_network(experiment_, model_name(), seed, *job_.statistics);
  if (restored_ && restored_->optimizer.empty()) {  // it was trained
    job_.communicator->all_or_none([&] { load_state(*network_, restored_->model); });
    restored_.reset();
    return *network_;
  }
  if (!learner_) learner_ = std::make_unique<Learner>(experiment_, network_, *job_.communicator, timer_);
  if (restored_) {
    restore_state(*learner_, *restored_, job_);
    restored_.reset();
  } else {
    position_ = {};
    seconds_ = 0.0;
  }
  clock_.emplace();
  {
    const trace::Span span("proxy training", trace::keeps_all());
    const trace::StepsApart steps_apart;
    train(save);
  }
  seconds_ = seconds();
  clock_.reset();
  learner_.reset();
  return *network_;
}

void Proxy::train(const std::function<void()>& save) {
  const Config& config = experiment_.config;
  TrainingConfig training = with_scaled_rate(config.training, job_.communicator->size());
  training.steps = config.selection.proxy.steps;
  const std::int64_t steps_per_epoch = experiment_.steps_of(static_cast<std::int64_t>(experiment_.candidates.size()));
  const LearningRateSchedule schedule(training, steps_per_epoch);
  // A stop after the last step of an epoch has left the epoch to be ended here.
  while (position_.step < training.steps || position_.order_position > 0) {
    const std::int64_t first = position_.step - experiment_.steps_of(position_.order_position);  // of the epoch
    train_epoch(experiment_, job_,
                {.learner = *learner_,
                 .schedule = schedule,
                 .timer = timer_,
                 .ids = experiment_.candidates,
                 .seed = derived_seed(config.seed, "proxy"),
                 .steps = std::min(steps_per_epoch, training.steps - first),
                 .activity = "proxy training",
                 .title = fmt::format("proxy, epoch {}", position_.epoch + 1),
                 .interruptions = interruptions_,
                 .save = save},
                position_);
    ++position_.epoch;
    position_.order_position = 0;
  }
  const EpochTotals totals = learner_->take_totals();
  log::info("proxy {}: {} steps on all data, mean loss {:.4f}, accuracy {:.2f} %", model_name(), position_.step,
            totals.loss, 100 * totals.accuracy);
}

void Proxy::add_to(TrainingState& state, HostCopies& copies, bool is_needed) {
  state.proxy_position = position_;
  state.proxy_seconds = seconds();
  if (learner_) {
    state.proxy = take_state(*learner_, experiment_, job_, copies);
  } else if (restored_) {  // not asked for yet
    state.proxy = restored_;
  } else if (network_ && is_needed) {
    state.proxy.emplace();
    if (!job_.is_lead()) return;
    state.proxy->model = copies.copy(named_state(*network_));
  }
}

void Proxy::restore(TrainingState& state) {
  position_ = state.proxy_position;
  seconds_ = state.proxy_seconds;
  restored_ = std::move(state.proxy);
}

}  // namespace sage
