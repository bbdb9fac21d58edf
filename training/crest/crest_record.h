// What a run with crest leaves in metrics.json.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sage {

/// One update: coresets were chosen and the quadratic model was fitted.
struct CrestUpdate {
  std::int64_t round = 0;  ///< 1, 2, ...
  std::int64_t step = 0;   ///< optimizer steps done before it
  // Why: what the check found. None at the first update.
  std::optional<double> error;            ///< rho = |model_loss - true_loss| / true_loss, above tau
  std::optional<double> model_loss;       ///< F(delta)
  std::optional<double> true_loss;        ///< L_r
  std::optional<double> true_loss_error;  ///< standard error of L_r over draws of V_r
  // What came of it.
  std::int64_t coresets = 0;       ///< mini-batch coresets chosen
  std::int64_t interval = 1;       ///< T1 from here on
  std::int64_t next_coresets = 0;  ///< P of the next update
  double fitted_loss = 0.0;        ///< mean weighted loss of the coresets
  double gradient_norm = 0.0;      ///< ||g||
  double hessian_norm = 0.0;       ///< ||H||
  std::int64_t remaining = 0;      ///< examples that were drawn from
  /// Part of an example's observations at which it was forgotten (LossWatch::forgettability), mean over the examples of
  /// the coresets, and of the random sets that they were chosen from.
  std::optional<double> forgettability, forgettability_of_random;
};

/// The state of crest after a short epoch. Counts are of the whole run.
struct CrestEpoch {
  std::int64_t updates = 0, checks = 0;
  std::optional<double> error;  ///< rho of the last check
  std::int64_t interval = 1, coresets = 0;
  std::optional<double> hessian_norm;
  std::int64_t remaining = 0, dropped = 0;
  std::optional<double> dropped_accuracy;  ///< on (a sample of) the dropped examples, where the epoch was evaluated
  std::optional<double> forgettability, forgettability_of_random;    ///< at the last update
  std::int64_t forwarded_by_selection = 0, forwarded_by_checks = 0;  ///< examples
  /// Wall-clock seconds of this epoch on rank 0, in the process that ended it; training is all steps but for the other
  /// three.
  struct Seconds {
    double selection = 0.0, approximation = 0.0, checking = 0.0, training = 0.0;
    Seconds& operator+=(const Seconds& other);
    /// Part of the time that is not training, in [0, 1].
    double share_of_others() const;
  } seconds;
};

/// "crest/updates" and so on, for curves over the epochs.
std::vector<std::pair<std::string, double>> scalars_of(const CrestEpoch& epoch);

nlohmann::ordered_json to_json(const CrestUpdate& update);
nlohmann::ordered_json to_json(const CrestEpoch& epoch);
/// Throw JsonError or an exception of nlohmann::json.
CrestUpdate crest_update_from_json(const nlohmann::ordered_json& from);
CrestEpoch crest_epoch_from_json(const nlohmann::ordered_json& from);

}  // namespace sage
