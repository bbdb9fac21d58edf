#include "selection/gradient_sketch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/error.h"
#include "core/exact_covariance.h"
#include "core/frequent_directions.h"
#include "distributed/sketch_all_reduce.h"
#include "selection/consensus.h"

namespace sage {
namespace {

class FrequentDirectionsByShard : public GradientSketch {
 public:
  FrequentDirectionsByShard(const FrequentDirectionsOptions& options, const ShardPlan& plan)
      : sketch_(options), plan_(plan), tree_(plan.home_height()), none_(sketch_.state()) {}

  // Room for a whole micro-batch is made where a shrink can make it: a batch cut in two costs more than an early
  // shrink.
  at::Tensor claim(std::int64_t rows) override { return sketch_.claim(rows, rows); }
  void commit(std::int64_t rows, const at::Tensor& squared_norms) override { sketch_.commit(rows, squared_norms); }
  void end_shard(std::int64_t shard) override {
    tree_.insert({0, shard}, sketch_.state());
    sketch_.reset();
  }
  SketchState merge(Communicator& communicator) override {
    return sketch_all_reduce(std::move(tree_), plan_, none_, communicator);
  }

 private:
  FrequentDirections sketch_;
  ShardPlan plan_;
  ShardTree tree_;
  SketchState none_;
};

class CovarianceOfAll : public GradientSketch {
 public:
  CovarianceOfAll(std::int64_t dimension, at::Device device, std::int64_t batch_rows)
      : covariance_(dimension, device),
        rows_(at::empty({batch_rows, dimension}, at::TensorOptions(device).dtype(at::kFloat))) {}

  at::Tensor claim(std::int64_t rows) override { return rows_.narrow(0, 0, std::min(rows, rows_.size(0))); }
  void commit(std::int64_t rows, const at::Tensor& squared_norms) override {
    covariance_.update(rows_.narrow(0, 0, rows), squared_norms);
  }
  void end_shard(std::int64_t) override {}

  SketchState merge(Communicator& communicator) override {
    at::Tensor totals =
        at::tensor({static_cast<double>(covariance_.rows_seen()), covariance_.squared_norm()}, at::kDouble);
    all_reduce_sum_anywhere(communicator, covariance_.covariance());
    all_reduce_sum_anywhere(communicator, totals);
    SketchState state = covariance_.state();
    // Every rank has decomposed the same bits; rank 0's result holds, should their libraries or processors differ.
    at::Tensor row_count = at::tensor({static_cast<double>(state.row_count())}, at::kDouble);
    broadcast(communicator, row_count);
    const auto rows = static_cast<std::int64_t>(row_count.item<double>());
    if (rows != state.row_count()) {
      state.rows = at::empty({rows, state.rule.dimension}, state.rows.options());
      state.eigenvalues = at::empty({rows}, at::kDouble);
    }
    if (rows > 0) {
      broadcast(communicator, state.rows);
      broadcast(communicator, state.eigenvalues);
    }
    state.rows_seen = static_cast<std::int64_t>(totals.const_data_ptr<double>()[0]);
    state.squared_norm = totals.const_data_ptr<double>()[1];
    return state;
  }

 private:
  static void broadcast(Communicator& communicator, at::Tensor tensor) {
    at::Tensor there = tensor.to(communicator.device()).contiguous();
    communicator.broadcast(there, 0);
    if (!there.is_same(tensor)) tensor.copy_(there);
  }

  ExactCovariance covariance_;
  at::Tensor rows_;
};

}  // namespace

std::int64_t start_size(const SelectionConfig::Sketch& config) {
  return config.size > 0 ? config.size : std::min(kAutoStartSize, config.max_size);
}

std::int64_t largest_size(const SelectionConfig::Sketch& config) {
  return config.size > 0 ? config.size : config.max_size;
}

bool is_exact(const SelectionConfig::Sketch& config, std::int64_t dimension) {
  return config.method == "fd" && dimension <= 4 * start_size(config);
}

std::unique_ptr<GradientSketch> make_gradient_sketch(const SelectionConfig::Sketch& config, std::int64_t dimension,
                                                     at::Device device, const ShardPlan& plan,
                                                     std::int64_t batch_rows) {
  if (is_exact(config, dimension)) return std::make_unique<CovarianceOfAll>(dimension, device, batch_rows);
  FrequentDirectionsOptions options;
  options.dimension = dimension;
  options.size = start_size(config);
  options.buffer = config.buffer;
  options.epsilon = config.epsilon;
  options.max_size = config.size > 0 ? 0 : config.max_size;
  options.device = device;
  return std::make_unique<FrequentDirectionsByShard>(options, plan);
}

}  // namespace sage
