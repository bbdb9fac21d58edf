// Every rank keeps the factors of the examples chosen so far (budget x (F + C)) and solves the same least squares;
// correlations with the residual are those of its own examples. What decides is the same on all: agreed values, or
// arithmetic in one fixed order on agreed rows.
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "core/random.h"
#include "selection/consensus.h"
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

  /// `row` is [h, 1, r].
  void append(const at::Tensor& row) {
    if (!extended_.defined() || count_ == extended_.size(0)) grow();
    extended_[count_].copy_(row.narrow(0, 0, width_));
    residuals_[count_].copy_(row.narrow(0, width_, classes_));
    ++count_;
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
  at::Tensor combination(const std::vector<double>& weights) const {
    const at::Tensor column = at::tensor(weights, at::kDouble).unsqueeze(1);
    return at::mm((residuals_.narrow(0, 0, count_) * column).t(), extended_.narrow(0, 0, count_));
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

/// The pursuit itself, over atoms whose gradients a derived class knows.
class Pursuit {
 public:
  Pursuit(const GroupTask& task, SharedRows atoms)
      : task_(task), config_(task.request.config.gradmatch), atoms_(std::move(atoms)), fit_(config_.lambda) {}
  virtual ~Pursuit() = default;

  /// ALL ranks of the task: exactly the budget.
  std::vector<Pick> run() {
    std::vector<double> wanted(static_cast<std::size_t>(atoms_.count()));
    // Each step lowers the objective, so that none comes twice; the bound is for what rounding might do to that.
    for (std::int64_t step = 0; step < 4 * task_.group.budget + 64 && !is_full(); ++step) {
      const double square = correlate_with_residual(wanted);
      if (step == 0) target_square_ = square;
      const SharedRows::Found found = atoms_.take_best(wanted, square - config_.tolerance * target_square_);
      if (found.position < 0 || !(found.value > 0.0) || found.note <= 0.0) break;
      use(found);
    }
    std::vector<Pick> picks;
    for (std::size_t j = 0; j < fit_.tags().size(); ++j) {
      add_examples(fit_.tags()[j], fit_.weights()[j], picks);
    }
    fill(picks);
    return picks;
  }

 protected:
  /// Sets `wanted` to <atom, residual> for the atoms of this rank; the squared norm of the residual (before the first
  /// atom is used: of the target).
  virtual double correlate_with_residual(std::vector<double>& wanted) = 0;
  /// Keeps the row of an atom, numbered from 0. `all`: its products with those kept before; `square` and `target`:
  /// with itself and with the target.
  struct Products {
    std::vector<double> all;
    double square = 0.0, target = 0.0;
  };
  virtual Products keep(const at::Tensor& row) = 0;
  /// Whether those in use make up the budget.
  virtual bool is_full() const = 0;
  /// The examples of atom `tag`, no more than the budget has room for.
  virtual void add_examples(std::int64_t tag, double weight, std::vector<Pick>& picks) const = 0;

  /// Of the atoms kept, 0 for those out of use.
  std::vector<double> all_weights() const {
    std::vector<double> weights(kept_.size(), 0.0);
    for (std::size_t j = 0; j < fit_.tags().size(); ++j) {
      weights[static_cast<std::size_t>(fit_.tags()[j])] = fit_.weights()[j];
    }
    return weights;
  }
  std::int64_t position_of(std::int64_t tag) const { return kept_[static_cast<std::size_t>(tag)].position; }

  const GroupTask& task_;
  const SelectionConfig::GradMatch& config_;
  SharedRows atoms_;
  NonNegativeLeastSquares fit_;

 private:
  /// Takes a found atom into the fit. One that depends on those chosen stays taken: it cannot help.
  void use(const SharedRows::Found& found) {
    const auto tag = static_cast<std::int64_t>(kept_.size());
    const Products with = keep(found.row);
    kept_.push_back({found.position, found.local});
    std::vector<double> products;
    for (const std::int64_t used : fit_.tags()) products.push_back(with.all[static_cast<std::size_t>(used)]);
    if (!fit_.add(tag, products, with.square, with.target)) return;
    for (const std::int64_t gone : fit_.fit()) {
      const Kept& row = kept_[static_cast<std::size_t>(gone)];
      if (gone != tag && row.local >= 0) atoms_.release(row.local);
    }
  }

  /// At random, with weight 1.
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

  struct Kept {
    std::int64_t position, local;  // as found
  };
  std::vector<Kept> kept_;  // by tag
  double target_square_ = 0.0;
};

double product(const at::Tensor& a, const at::Tensor& b) {
  double result = 0.0;
  dot_products(a.reshape({1, -1}).contiguous(), b.contiguous(), {&result, 1});
  return result;
}

/// Each example is an atom.
class ExamplePursuit : public Pursuit {
 public:
  explicit ExamplePursuit(const GroupTask& task) : ExamplePursuit(task, with_one(task.points.features)) {}

 private:
  ExamplePursuit(const GroupTask& task, const at::Tensor& extended)
      : Pursuit(task, SharedRows(task.points, joined(extended, task.points.residuals), task.communicator)),
        extended_(extended),
        residuals_(task.points.residuals),
        target_(sum_of_gradients(residuals_, extended_, task.communicator)),
        chosen_(extended_.size(1), residuals_.size(1)) {}

  double correlate_with_residual(std::vector<double>& wanted) override {
    at::Tensor residual = target_;
    if (chosen_.count() > 0) residual = target_ - chosen_.combination(all_weights());
    correlate(residuals_, extended_, residual, wanted);
    return residual.square().sum().item<double>();
  }

  Products keep(const at::Tensor& row) override {
    const std::int64_t width = extended_.size(1), classes = residuals_.size(1);
    const at::Tensor extended = row.narrow(0, 0, width), residual = row.narrow(0, width, classes);
    Products products{chosen_.products_with(row), product(extended, extended) * product(residual, residual), 0.0};
    // r^T T [h, 1], in an order that is the same on every machine.
    std::vector<double> by_class(static_cast<std::size_t>(classes));
    dot_products(target_, extended, by_class);
    for (std::size_t c = 0; c < by_class.size(); ++c) {
      products.target += by_class[c] * residual.const_data_ptr<double>()[c];
    }
    chosen_.append(row);
    return products;
  }

  bool is_full() const override { return static_cast<std::int64_t>(fit_.tags().size()) >= task_.group.budget; }
  void add_examples(std::int64_t tag, double weight, std::vector<Pick>& picks) const override {
    picks.push_back({position_of(tag), weight});
  }

  const at::Tensor extended_, residuals_;
  const at::Tensor target_;  // [C, F + 1]: the sum of all gradients
  ChosenRows chosen_;
};

/// Random mini-batches of a group, and the sum of the gradients of each: float64 [batches, D], the same on every rank.
struct Batches {
  std::vector<std::vector<std::int64_t>> members;  // positions, in random order
  Points numbers;                                  // of the batches, as positions
  at::Tensor gradients;

  explicit Batches(const GroupTask& task) {
    const std::vector<std::int64_t>& all = task.group.members;
    const auto count = static_cast<std::int64_t>(all.size());
    const std::int64_t size = task.request.config.gradmatch.batch, batches = (count + size - 1) / size;
    members.resize(static_cast<std::size_t>(batches));
    std::vector<std::int64_t> batch_of(all.size());  // of each member
    const std::vector<std::int64_t> order = random_permutation(
        count, RandomStream(task.request.seed, "gradmatch batches", task.request.round, task.number));
    for (std::int64_t i = 0; i < count; ++i) {
      const auto member = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]);
      batch_of[member] = i / size;
      members[static_cast<std::size_t>(i / size)].push_back(all[member]);
    }
    const at::Tensor extended = with_one(task.points.features);
    const std::int64_t classes = task.points.residuals.size(1), width = extended.size(1);
    gradients = at::zeros({batches, classes, width}, at::kDouble);
    for (std::int64_t i = 0; i < task.points.count(); ++i) {
      const auto member = std::lower_bound(all.begin(), all.end(), task.points.positions[static_cast<std::size_t>(i)]);
      gradients[batch_of[static_cast<std::size_t>(member - all.begin())]].addr_(task.points.residuals[i], extended[i]);
    }
    gradients = gradients.view({batches, classes * width});
    all_reduce_sum_anywhere(task.communicator, gradients);
    for (std::int64_t batch = 0; batch < batches; ++batch) numbers.positions.push_back(batch);
  }
};

/// Each mini-batch is an atom (GradMatch-PB, section 4 of the paper): its examples share a weight, and the last one
/// that is taken is cut to what the budget has room for.
class BatchPursuit : public Pursuit {
 public:
  BatchPursuit(const GroupTask& task, const Batches& batches, Communicator& alone)
      : Pursuit(task, SharedRows(batches.numbers, batches.gradients, alone)),
        batches_(batches),
        target_(batches.gradients.sum(0)) {}

 private:
  double correlate_with_residual(std::vector<double>& wanted) override {
    // In an order that is the same on every machine: all ranks do this for themselves.
    at::Tensor residual = target_.clone();
    double* left = residual.mutable_data_ptr<double>();
    const std::vector<double> weights = all_weights();
    for (std::size_t j = 0; j < weights.size(); ++j) {
      if (weights[j] == 0.0) continue;
      const at::Tensor gradient = row_of(static_cast<std::int64_t>(j));
      const double* g = gradient.const_data_ptr<double>();
      for (std::int64_t d = 0; d < residual.numel(); ++d) left[d] -= weights[j] * g[d];
    }
    dot_products(atoms_.rows(), residual, wanted);
    return product(residual, residual);
  }

  Products keep(const at::Tensor& row) override {
    Products products{{}, product(row, row), product(row, target_)};
    for (std::size_t j = 0; j < all_weights().size(); ++j) {
      products.all.push_back(product(row_of(static_cast<std::int64_t>(j)), row));
    }
    return products;
  }

  bool is_full() const override {
    std::int64_t examples = 0;
    for (const std::int64_t tag : fit_.tags()) examples += static_cast<std::int64_t>(members_of(tag).size());
    return examples >= task_.group.budget;
  }
  void add_examples(std::int64_t tag, double weight, std::vector<Pick>& picks) const override {
    for (const std::int64_t position : members_of(tag)) {
      if (static_cast<std::int64_t>(picks.size()) < task_.group.budget) picks.push_back({position, weight});
    }
  }

  at::Tensor row_of(std::int64_t tag) const { return atoms_.rows()[position_of(tag)]; }
  const std::vector<std::int64_t>& members_of(std::int64_t tag) const {
    return batches_.members[static_cast<std::size_t>(position_of(tag))];
  }

  const Batches& batches_;
  const at::Tensor target_;  // [D]
};

std::vector<Pick> match_gradients(const GroupTask& task) {
  if (task.request.config.gradmatch.batch == 1) return ExamplePursuit(task).run();
  const Batches batches(task);
  return BatchPursuit(task, batches, *make_single_communicator(at::kCPU)).run();
}

}  // namespace

SelectionResult select_gradmatch(const SelectionRequest& request) {
  return select_in_groups(request, {.name = "gradmatch",
                                    .columns = {.features = true, .residuals = true},
                                    .weighs = true,
                                    .choose = match_gradients});
}

}  // namespace sage
