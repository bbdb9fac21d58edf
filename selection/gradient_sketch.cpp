#include "selection/gradient_sketch.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "core/error.h"
#include "core/exact_covariance.h"
#include "core/frequent_directions.h"
#include "distributed/sketch_all_reduce.h"
#include "selection/consensus.h"
#include "selection/selection_state.h"

namespace sage {
namespace {

class FrequentDirectionsByShard : public GradientSketch {
 public:
  FrequentDirectionsByShard(const FrequentDirectionsOptions& options, const ShardPlan& plan, int rank)
      : sketch_(options), plan_(plan), rank_(rank), tree_(plan.home_height()), none_(sketch_.state()) {}

  void begin_shard(std::int64_t shard) override {
    shard_ = shard;
    const auto begun = begun_.find(shard);
    if (begun == begun_.end()) {
      sketch_.reset();
    } else {
      sketch_ = std::move(begun->second);
      begun_.erase(begun);
    }
  }
  // Room for a whole micro-batch is made where a shrink can make it: a batch cut in two costs more than an early
  // shrink.
  at::Tensor claim(std::int64_t rows) override { return sketch_.claim(rows, rows); }
  void commit(std::int64_t rows, const at::Tensor& squared_norms) override { sketch_.commit(rows, squared_norms); }
  void end_shard(std::int64_t shard) override {
    tree_.insert({0, shard}, sketch_.state());
    sketch_.reset();
  }

  SketchState merge(Communicator& communicator) override {
    if (is_restored_) return merge_by_way_of_homes(communicator);
    return sketch_all_reduce(std::move(tree_), plan_, none_, communicator);
  }

  std::vector<NamedTensor> save() const override {
    std::vector<NamedTensor> tensors;
    for (const auto& [node, state] : tree_.nodes()) {
      const auto parts = to_tensors(state, fmt::format("node.{}.{}", node.height, node.index));
      tensors.insert(tensors.end(), parts.begin(), parts.end());
    }
    const auto add = [&](std::int64_t shard, const FrequentDirections& sketch) {
      const std::string bytes = sketch.serialize();
      at::Tensor tensor = at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
      std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
      tensors.push_back({fmt::format("shard.{}", shard), tensor});
    };
    if (!sketch_.empty()) add(shard_, sketch_);
    for (const auto& [shard, sketch] : begun_) add(shard, sketch);
    return tensors;
  }

  void restore(const std::string& name, const at::Tensor& tensor) override {
    is_restored_ = true;
    const std::vector<std::string> parts = parts_of_name(name);
    if (parts.size() == 4 && parts[0] == "node") {
      const std::int64_t height = number_in_name(name, 1), index = number_in_name(name, 2);
      if (height > 62 || index >= plan_.shard_count() >> height)
        damaged_selection(fmt::format("there is no place for {}", name));
      const TreeNode node{static_cast<int>(height), index};
      SketchState& state = restored_[node];  // on every rank, so that all know which shards there are
      if (plan_.home_of(node) == rank_) take_tensor(state, parts[3], tensor, none_.rows.device());
    } else if (parts.size() == 2 && parts[0] == "shard") {
      const std::int64_t shard = number_in_name(name, 1);
      const auto [first, last] = plan_.shards_of(rank_);
      restored_shards_.insert(shard);
      if (shard < first || shard >= last) return;
      if (tensor.scalar_type() != at::kByte) damaged_selection(fmt::format("{} is not a sketch", name));
      const at::Tensor held = tensor.cpu().contiguous();
      const std::string_view bytes(static_cast<const char*>(held.const_data_ptr()), held.nbytes());
      FrequentDirections sketch = FrequentDirections::deserialize(bytes, none_.rows.device());
      if (sketch.dimension() != none_.rule.dimension)
        damaged_selection(fmt::format("{} is of another dimension", name));
      begun_.emplace(shard, std::move(sketch));
    } else {
      damaged_selection(fmt::format("nothing is known of a tensor `{}`", name));
    }
  }

  void check_restored(std::span<const std::int64_t> rows_done) override {
    std::vector<int> covered(rows_done.size(), 0);
    for (const auto& [node, state] : restored_) {
      const std::int64_t first = node.first_shard();
      for (std::int64_t i = 0; i < std::int64_t{1} << node.height; ++i) ++covered[static_cast<std::size_t>(first + i)];
    }
    for (std::size_t shard = 0; shard < rows_done.size(); ++shard) {
      const bool has_begun = restored_shards_.count(static_cast<std::int64_t>(shard)) > 0;
      if (covered[shard] != (rows_done[shard] == kShardEnded ? 1 : 0) || has_begun != (rows_done[shard] > 0)) {
        damaged_selection(fmt::format("the sketch of shard {} does not fit what is said of it", shard));
      }
    }
    for (const auto& [shard, sketch] : begun_) {
      if (sketch.rows_seen() != rows_done[static_cast<std::size_t>(shard)]) {
        damaged_selection(fmt::format("the sketch of shard {} holds another number of rows", shard));
      }
    }
    for (auto& [node, state] : restored_) {
      if (plan_.home_of(node) != rank_) continue;
      check_sketch(state, none_.rule.dimension);
      tree_.insert(node, std::move(state));
    }
    restored_.clear();
  }

 private:
  /// ALL ranks. What was restored is at its home already, wherever its shards would be sketched now; the rest follows.
  /// A node above the homes' height (of a selection on fewer ranks) stays with the first of its homes: merging nothing
  /// to it changes nothing.
  SketchState merge_by_way_of_homes(Communicator& communicator) {
    std::string mine;
    for (const auto& [node, state] : tree_.nodes()) mine += fmt::format("{}.{}.", node.height, node.index);
    const std::vector<std::string> of_ranks = communicator.all_gather_strings(mine);
    std::map<TreeNode, SketchState> nodes = tree_.take();
    ShardTree tree(plan_.home_height());
    for (int from = 0; from < communicator.size(); ++from) {
      const std::string& list = of_ranks[static_cast<std::size_t>(from)];
      const auto count = static_cast<std::size_t>(std::count(list.begin(), list.end(), '.'));
      for (std::size_t i = 0; i < count; i += 2) {
        const TreeNode node{static_cast<int>(number_in_name(list, i)), number_in_name(list, i + 1)};
        const int home = plan_.home_of(node);
        SketchState state = from == rank_ ? std::move(nodes.at(node)) : none_;
        if (home != from) send(state, from, home, communicator);
        if (home == rank_) tree.insert(node, std::move(state));
      }
    }
    std::map<TreeNode, SketchState> whole = tree.take();
    require(whole.size() <= 1, "shards are missing, the tree could not be closed");
    return sketch_all_reduce(whole.empty() ? none_ : std::move(whole.begin()->second), communicator);
  }

  /// ALL ranks: `state` of rank `from` to rank `to`.
  void send(SketchState& state, int from, int to, Communicator& communicator) const {
    const bool sends = rank_ == from, receives = rank_ == to;
    const int partner = sends ? to : receives ? from : -1;
    const auto device = communicator.device();
    const auto pass = [&](const at::Tensor& tensor, at::Tensor room) {
      if ((sends ? tensor : room).numel() == 0) return communicator.exchange(-1, {}, {});
      at::Tensor arrived = receives ? room.to(device) : at::Tensor();
      communicator.exchange(partner, sends ? tensor.contiguous().to(device) : at::Tensor(), arrived);
      if (receives) room.copy_(arrived);
    };
    at::Tensor numbers = sketch_numbers(state);
    pass(numbers, numbers);
    if (receives) {
      const std::int64_t rows = read_sketch_numbers(numbers, state);
      state.eigenvalues = at::empty({rows}, at::kDouble);
      state.rows = at::empty({rows, state.rule.dimension}, none_.rows.options());
    }
    pass(state.eigenvalues, state.eigenvalues);
    pass(state.rows, state.rows);
  }

  FrequentDirections sketch_;
  std::int64_t shard_ = 0;  // that sketch_ is of
  ShardPlan plan_;
  int rank_;
  ShardTree tree_;
  SketchState none_;
  bool is_restored_ = false;
  std::map<std::int64_t, FrequentDirections> begun_;  // restored shards of this rank whose turn has not come
  std::map<TreeNode, SketchState> restored_;          // until check_restored(): without rows where it is not the home
  std::set<std::int64_t> restored_shards_;
};

class CovarianceOfAll : public GradientSketch {
 public:
  CovarianceOfAll(std::int64_t dimension, at::Device device, const ShardPlan& plan, int rank, std::int64_t batch_rows)
      : covariance_(dimension, device),
        plan_(plan),
        rank_(rank),
        rows_(at::empty({batch_rows, dimension}, at::TensorOptions(device).dtype(at::kFloat))) {}

  void begin_shard(std::int64_t) override {}
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

  std::vector<NamedTensor> save() const override {
    const at::Tensor totals =
        at::tensor({static_cast<double>(covariance_.rows_seen()), covariance_.squared_norm()}, at::kDouble);
    return {{fmt::format("covariance.{}.sum", rank_), covariance_.covariance()},
            {fmt::format("covariance.{}.totals", rank_), totals}};
  }

  // The parts of other ranks than there are now go to those that there are: a sum does not mind.
  void restore(const std::string& name, const at::Tensor& tensor) override {
    const std::vector<std::string> parts = parts_of_name(name);
    if (parts.size() != 3 || parts[0] != "covariance" || tensor.scalar_type() != at::kDouble) {
      damaged_selection(fmt::format("nothing is known of a tensor `{}`", name));
    }
    const bool is_mine = number_in_name(name, 1) % plan_.rank_count() == rank_;
    const std::int64_t dimension = covariance_.covariance().size(0);
    if (parts[2] == "sum") {
      if (tensor.sizes() != at::IntArrayRef{dimension, dimension}) damaged_selection(name + " is of another dimension");
      if (is_mine) covariance_.merge(tensor, 0, 0.0);
    } else {
      if (tensor.numel() != 2) damaged_selection(name + " should be two numbers");
      const at::Tensor totals = tensor.cpu();
      const double rows = totals.const_data_ptr<double>()[0];
      restored_rows_ += rows;
      if (is_mine) covariance_.merge({}, static_cast<std::int64_t>(rows), totals.const_data_ptr<double>()[1]);
    }
  }

  void check_restored(std::span<const std::int64_t> rows_done) override {
    double rows = 0.0;
    for (std::int64_t shard = 0; shard < plan_.shard_count(); ++shard) {
      const std::int64_t done = rows_done[static_cast<std::size_t>(shard)];
      const auto [first, last] = plan_.positions(shard);
      rows += static_cast<double>(done == kShardEnded ? last - first : done);
    }
    if (rows != restored_rows_) damaged_selection("the covariance is of another number of rows");
  }

 private:
  static void broadcast(Communicator& communicator, at::Tensor tensor) {
    at::Tensor there = tensor.to(communicator.device()).contiguous();
    communicator.broadcast(there, 0);
    if (!there.is_same(tensor)) tensor.copy_(there);
  }

  ExactCovariance covariance_;
  ShardPlan plan_;
  int rank_;
  at::Tensor rows_;
  double restored_rows_ = 0.0;
};

}  // namespace

std::vector<NamedTensor> to_tensors(const SketchState& state, const std::string& prefix) {
  return {{prefix + ".rows", state.rows},
          {prefix + ".eigenvalues", state.eigenvalues},
          {prefix + ".numbers", sketch_numbers(state)}};
}

void take_tensor(SketchState& state, const std::string& part, const at::Tensor& tensor, at::Device device) {
  if (part == "rows" && tensor.dim() == 2 && tensor.scalar_type() == at::kFloat) {
    state.rows = tensor.to(device).clone();
  } else if (part == "eigenvalues" && tensor.dim() == 1 && tensor.scalar_type() == at::kDouble) {
    state.eigenvalues = tensor.cpu().clone();
  } else if (part == "numbers" && tensor.numel() == kSketchNumbers && tensor.scalar_type() == at::kDouble) {
    read_sketch_numbers(tensor.cpu(), state);
  } else {
    damaged_selection(fmt::format("the {} of a sketch are not as they should be", part));
  }
}

void check_sketch(const SketchState& state, std::int64_t dimension) {
  if (!state.rows.defined() || !state.eigenvalues.defined() || state.rule.size < 1)
    damaged_selection("a sketch is not whole");
  if (state.rows.size(1) != dimension || state.rule.dimension != dimension ||
      state.rows.size(0) != state.eigenvalues.size(0)) {
    damaged_selection("a sketch is of another shape");
  }
}

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
                                                     at::Device device, const ShardPlan& plan, int rank,
                                                     std::int64_t batch_rows) {
  if (is_exact(config, dimension)) {
    return std::make_unique<CovarianceOfAll>(dimension, device, plan, rank, batch_rows);
  }
  FrequentDirectionsOptions options;
  options.dimension = dimension;
  options.size = start_size(config);
  options.alpha = config.alpha;
  options.buffer = config.buffer;
  options.epsilon = config.epsilon;
  options.max_size = config.size > 0 ? 0 : config.max_size;
  options.device = device;
  return std::make_unique<FrequentDirectionsByShard>(options, plan, rank);
}

}  // namespace sage
