// Every rank keeps the factors of the examples chosen so far (budget x (F + C)) and solves the same least squares;
// correlations with the residual are those of its own examples. What decides is the same on all: agreed values, or
// arithmetic in one fixed order on agreed rows.
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <unordered_set>

#include "core/random.h"
#include "selection/group_selection.h"
#include "selection/last_layer.h"
#include "selection/methods.h"
#include "selection/nonnegative_least_squares.h"
#include "selection/shared_rows.h"

namespace sage {
namespace {

/// Rows that examples which were once chosen have left, numbered in that order; the weight of those out of use is 0.
class ChosenRows {
 public:
  ChosenRows(std::int64_t feature_width, std::int64_t class_count) : width_(feature_width), classes_(class_count) {}

  /// `row` is [h, 1, r]. Returns its number.
  std::int64_t append(const at::Tensor& row) {
    if (!extended_.defined() || count_ == extended_.size(0)) grow();
    extended_[count_].copy_(row.narrow(0, 0, width_));
    residuals_[count_].copy_(row.narrow(0, width_, classes_));
    return count_++;
  }
  /// <g_j, g> with every row j there is, by the factors: (r_j . r)([h_j, 1] . [h, 1]).
  std::vector<double> products_with(const at::Tensor& row) const {
    std::vector<double> by_features(static_cast<std::size_t>(count_)), by_residuals(by_features.size());
    if (count_ == 0) return {};
    dot_products(extended_.narrow(0, 0, count_), row.narrow(0, 0, width_), by_features);
    dot_products(residuals_.narrow(0, 0, count_), row.narrow(0, width_, classes_), by_residuals);
    for (std::size_t j = 0; j < by_features.size(); ++j) by_features[j] *= by_residuals[j];
    return by_features;
  }
  /// sum_j weight_j g_j as [C, F + 1].
  at::Tensor combination(const at::Tensor& weights) const {
    return at::mm((residuals_.narrow(0, 0, count_) * weights.unsqueeze(1)).t(), extended_.narrow(0, 0, count_));
  }
  std::int64_t count() const { return count_; }

 private:
  void grow() {
    const std::int64_t room = std::max<std::int64_t>(64, 2 * count_);
    at::Tensor extended = at::empty({room, width_}, at::kDouble), residuals = at::empty({room, classes_}, at::kDouble);
    if (count_ > 0) {
      extended.narrow(0, 0, count_).copy_(extended_);
      residuals.narrow(0, 0, count_).copy_(residuals_);
    }
    extended_ = extended;
    residuals_ = residuals;
  }
  std::int64_t width_, classes_, count_ = 0;
  at::Tensor extended_, residuals_;  // [room, F + 1] and [room, C]
};

class Pursuit {
 public:
  explicit Pursuit(const GroupTask& task)
      : task_(task),
        config_(task.request.config.gradmatch),
        extended_(with_one(task.points.features)),
        residuals_(task.points.residuals),
        points_(task.points, joined(extended_, residuals_), task.communicator),
        target_(sum_of_gradients(residuals_, extended_, task.communicator)),
        chosen_(extended_.size(1), residuals_.size(1)),
        fit_(config_.lambda) {}

  std::vector<Pick> run() {
    const double target_square = target_.square().sum().item<double>();
    std::vector<double> wanted(static_cast<std::size_t>(points_.count()));
    // Each step lowers the objective, so that none comes twice; the bound is for what rounding might do to that.
    for (std::int64_t step = 0; step < 4 * task_.group.budget + 64 && used() < task_.group.budget; ++step) {
      const at::Tensor residual = chosen_.count() > 0 ? target_ - chosen_.combination(all_weights()) : target_;
      correlate(residuals_, extended_, residual, wanted);
      const double above = residual.square().sum().item<double>() - config_.tolerance * target_square;
      const SharedRows::Found found = points_.take_best(wanted, above);
      if (found.position < 0 || !(found.value > 0.0) || found.note <= 0.0) break;
      use(found);
    }
    std::vector<Pick> picks;
    for (std::size_t j = 0; j < fit_.tags().size(); ++j) {
      picks.push_back({rows_[static_cast<std::size_t>(fit_.tags()[j])].position, fit_.weights()[j]});
    }
    fill(picks);
    return picks;
  }

 private:
  std::int64_t used() const { return static_cast<std::int64_t>(fit_.tags().size()); }

  /// Takes a found example into the fit. One that depends on those chosen stays taken: it cannot help.
  void use(const SharedRows::Found& found) {
    const std::vector<double> all = chosen_.products_with(found.row);
    std::vector<double> products;
    for (const std::int64_t tag : fit_.tags()) products.push_back(all[static_cast<std::size_t>(tag)]);
    const std::int64_t features = extended_.size(1);
    const at::Tensor extended = found.row.narrow(0, 0, features),
                     residual = found.row.narrow(0, features, residuals_.size(1));
    const double square = product(extended.unsqueeze(0), extended) * product(residual.unsqueeze(0), residual);
    const std::int64_t tag = chosen_.append(found.row);
    rows_.push_back({found.position, found.local});
    if (!fit_.add(tag, products, square, correlation_with_target(extended, residual))) return;
    for (const std::int64_t gone : fit_.fit()) {
      const Row& row = rows_[static_cast<std::size_t>(gone)];
      if (gone != tag && row.local >= 0) points_.release(row.local);
    }
  }

  static double product(const at::Tensor& row, const at::Tensor& other) {
    double result = 0.0;
    dot_products(row.contiguous(), other.contiguous(), {&result, 1});
    return result;
  }

  /// r^T T [h, 1], in an order that is the same on every machine.
  double correlation_with_target(const at::Tensor& extended, const at::Tensor& residual) const {
    std::vector<double> by_class(static_cast<std::size_t>(target_.size(0)));
    dot_products(target_, extended, by_class);
    double sum = 0.0;
    for (std::size_t c = 0; c < by_class.size(); ++c) sum += by_class[c] * residual.const_data_ptr<double>()[c];
    return sum;
  }

  at::Tensor all_weights() const {
    at::Tensor weights = at::zeros({chosen_.count()}, at::kDouble);
    double* weight = weights.mutable_data_ptr<double>();
    for (std::size_t j = 0; j < fit_.tags().size(); ++j) weight[fit_.tags()[j]] = fit_.weights()[j];
    return weights;
  }

  void fill(std::vector<Pick>& picks) const {
    std::unordered_set<std::int64_t> there;
    for (const Pick& pick : picks) there.insert(pick.position);
    const std::vector<std::int64_t>& members = task_.group.members;
    const std::vector<std::int64_t> order =
        random_permutation(static_cast<std::int64_t>(members.size()),
                           RandomStream(task_.request.seed, "gradmatch", task_.request.round, task_.number));
    for (auto next = order.begin(); static_cast<std::int64_t>(picks.size()) < task_.group.budget; ++next) {
      const std::int64_t position = members[static_cast<std::size_t>(*next)];
      if (!there.contains(position)) picks.push_back({position, 1.0});
    }
  }

  struct Row {
    std::int64_t position, local;
  };
  const GroupTask& task_;
  const SelectionConfig::GradMatch& config_;
  const at::Tensor extended_, residuals_;
  SharedRows points_;
  const at::Tensor target_;  // [C, F + 1]: the sum of all gradients
  ChosenRows chosen_;
  std::vector<Row> rows_;  // where those of chosen_ come from
  NonNegativeLeastSquares fit_;
};

}  // namespace

SelectionResult select_gradmatch(const SelectionRequest& request) {
  return select_in_groups(request, {.name = "gradmatch",
                                    .columns = {.features = true, .residuals = true},
                                    .weighs = true,
                                    .choose = [](const GroupTask& task) { return Pursuit(task).run(); }});
}

}  // namespace sage
