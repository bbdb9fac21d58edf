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

std::uint64_t Proxy::seed() const {
  const std::string purpose = number_ == 0 ? "proxy" : fmt::format("proxy {}", number_);
  return derived_seed(experiment_.config.seed, purpose.c_str());
}

void Proxy::begin(std::int64_t number) {
  if (number == number_) return;
  earlier_ = {examples(), seconds()};
  number_ = number;
  learner_.reset();
  network_.reset();
  restored_.reset();
  position_ = {};
  seconds_ = 0.0;
}

Classifier& Proxy::network(const std::function<void()>& save, std::int64_t number) {
  begin(number);
  if (network_ && !learner_) return *network_;
  if (!network_) network_ = make_network(experiment_, model_name(), seed(), *job_.statistics);
  if (restored_ && restored_->optimizer.empty()) {  // it was trained
    job_.communicator->all_or_none([&] { load_state(*network_, restored_->model); });
    restored_.reset();
    return *network_;
  }
  if (!learner_) learner_ = std::make_unique<Learner>(experiment_, network_, *job_.communicator, timer_, seed());
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
  seconds_ = own_seconds();
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
                 .seed = seed(),
                 .steps = std::min(steps_per_epoch, training.steps - first),
                 .activity = "proxy training",
                 .title = number_ == 0 ? fmt::format("proxy, epoch {}", position_.epoch + 1)
                                       : fmt::format("proxy {}, epoch {}", number_ + 1, position_.epoch + 1),
                 .interruptions = interruptions_,
                 .history = history_,
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
  state.proxy_seconds = own_seconds();
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

void Proxy::restore(TrainingState& state, std::int64_t number, const ProxyEffort& earlier) {
  number_ = number;
  earlier_ = earlier;
  position_ = state.proxy_position;
  seconds_ = state.proxy_seconds;
  restored_ = std::move(state.proxy);
}

}  // namespace sage
