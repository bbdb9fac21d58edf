#include "training/crest/crest_record.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/bounded_json.h"

namespace sage {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no word for a number that is not finite: null stands for it.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json optional_number(const std::optional<double>& value) { return value ? number(*value) : Json(nullptr); }

double number_at(const Json& from, const char* key) {
  const Json& value = from.at(key);
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}
std::optional<double> optional_at(const Json& from, const char* key) {
  const Json& value = from.at(key);
  return value.is_null() ? std::nullopt : std::optional(value.get<double>());
}
std::int64_t count_at(const Json& from, const char* key) { return whole_number(from.at(key), key); }

}  // namespace

CrestEpoch::Seconds& CrestEpoch::Seconds::operator+=(const Seconds& other) {
  selection += other.selection;
  approximation += other.approximation;
  checking += other.checking;
  training += other.training;
  return *this;
}

double CrestEpoch::Seconds::share_of_others() const {
  const double others = selection + approximation + checking;
  return others > 0.0 ? others / (others + training) : 0.0;
}

std::vector<std::pair<std::string, double>> scalars_of(const CrestEpoch& epoch) {
  std::vector<std::pair<std::string, double>> scalars{{"crest/updates", static_cast<double>(epoch.updates)},
                                                      {"crest/interval", static_cast<double>(epoch.interval)},
                                                      {"crest/coresets", static_cast<double>(epoch.coresets)},
                                                      {"crest/dropped", static_cast<double>(epoch.dropped)}};
  const auto add = [&](const char* name, const std::optional<double>& value) {
    if (value) scalars.emplace_back(name, *value);
  };
  add("crest/error", epoch.error);
  add("crest/hessian_norm", epoch.hessian_norm);
  add("crest/dropped_accuracy", epoch.dropped_accuracy);
  add("crest/forgettability", epoch.forgettability);
  add("crest/forgettability_of_random", epoch.forgettability_of_random);
  return scalars;
}

Json to_json(const CrestUpdate& update) {
  return {{"round", update.round},
          {"step", update.step},
          {"error", optional_number(update.error)},
          {"model_loss", optional_number(update.model_loss)},
          {"true_loss", optional_number(update.true_loss)},
          {"true_loss_error", optional_number(update.true_loss_error)},
          {"coresets", update.coresets},
          {"interval", update.interval},
          {"next_coresets", update.next_coresets},
          {"fitted_loss", number(update.fitted_loss)},
          {"gradient_norm", number(update.gradient_norm)},
          {"hessian_norm", number(update.hessian_norm)},
          {"remaining", update.remaining},
          {"forgettability", optional_number(update.forgettability)},
          {"forgettability_of_random", optional_number(update.forgettability_of_random)}};
}

CrestUpdate crest_update_from_json(const Json& from) {
  CrestUpdate update;
  update.round = count_at(from, "round");
  update.step = count_at(from, "step");
  update.error = optional_at(from, "error");
  update.model_loss = optional_at(from, "model_loss");
  update.true_loss = optional_at(from, "true_loss");
  update.true_loss_error = optional_at(from, "true_loss_error");
  update.coresets = count_at(from, "coresets");
  update.interval = count_at(from, "interval");
  update.next_coresets = count_at(from, "next_coresets");
  update.fitted_loss = number_at(from, "fitted_loss");
  update.gradient_norm = number_at(from, "gradient_norm");
  update.hessian_norm = number_at(from, "hessian_norm");
  update.remaining = count_at(from, "remaining");
  update.forgettability = optional_at(from, "forgettability");
  update.forgettability_of_random = optional_at(from, "forgettability_of_random");
  return update;
}

Json to_json(const CrestEpoch& epoch) {
  return {{"updates", epoch.updates},
          {"checks", epoch.checks},
          {"error", optional_number(epoch.error)},
          {"interval", epoch.interval},
          {"coresets", epoch.coresets},
          {"hessian_norm", optional_number(epoch.hessian_norm)},
          {"remaining", epoch.remaining},
          {"dropped", epoch.dropped},
          {"dropped_accuracy", optional_number(epoch.dropped_accuracy)},
          {"forgettability", optional_number(epoch.forgettability)},
          {"forgettability_of_random", optional_number(epoch.forgettability_of_random)},
          {"forwarded_by_selection", epoch.forwarded_by_selection},
          {"forwarded_by_checks", epoch.forwarded_by_checks},
          {"seconds",
           {{"selection", number(epoch.seconds.selection)},
            {"approximation", number(epoch.seconds.approximation)},
            {"checking", number(epoch.seconds.checking)},
            {"training", number(epoch.seconds.training)}}}};
}

CrestEpoch crest_epoch_from_json(const Json& from) {
  CrestEpoch epoch;
  epoch.updates = count_at(from, "updates");
  epoch.checks = count_at(from, "checks");
  epoch.error = optional_at(from, "error");
  epoch.interval = count_at(from, "interval");
  epoch.coresets = count_at(from, "coresets");
  epoch.hessian_norm = optional_at(from, "hessian_norm");
  epoch.remaining = count_at(from, "remaining");
  epoch.dropped = count_at(from, "dropped");
  epoch.dropped_accuracy = optional_at(from, "dropped_accuracy");
  epoch.forgettability = optional_at(from, "forgettability");
  epoch.forgettability_of_random = optional_at(from, "forgettability_of_random");
  epoch.forwarded_by_selection = count_at(from, "forwarded_by_selection");
  epoch.forwarded_by_checks = count_at(from, "forwarded_by_checks");
  const Json& seconds = from.at("seconds");
  epoch.seconds = {number_at(seconds, "selection"), number_at(seconds, "approximation"), number_at(seconds, "checking"),
                   number_at(seconds, "training")};
  return epoch;
}

}  // namespace sage
