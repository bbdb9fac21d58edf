#include "selection/example_scores.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "selection/consensus.h"
#include "selection/quota.h"

namespace sage {

ExampleScores::ExampleScores(const SelectionRequest& request, const ShardPlan& plan, const GradientPasses& passes,
                             ConfidentCounting& doubts)
    : request_(request),
      config_(request.config),
      communicator_(request.communicator),
      plan_(plan),
      passes_(passes),
      doubts_(doubts),
      scores_(static_cast<std::size_t>(passes.example_count()), kLowestScore) {}

GradientPasses::UseProbabilities ExampleScores::count_suspects() {
  if (!doubts_labels(config_)) return {};
  return [&](const at::Tensor& p, auto labels) {
    doubts_.count(p, labels);
    append_peer_scores(p, labels, doubts_.thresholds(), peers_.small_loss, peers_.confident_learning);
  };
}

bool ExampleScores::by_agreement(at::Tensor sketch, bool keeps_vectors) {
  if (config_.sketch.projection_precision == "bf16") sketch = sketch.to(at::kBFloat16);
  const at::ScalarType kept_type = !keeps_vectors                      ? at::ScalarType::Undefined
                                   : config_.cache_precision == "bf16" ? at::kBFloat16
                                                                       : at::kFloat;
  gradients_ = std::make_unique<ProjectedGradients>(passes_, *request_.source, std::move(sketch), kept_type);
  return config_.clusters == 1 ? agree_with_class() : agree_with_nearest();
}

bool ExampleScores::agree_with_class() {
  Consensus consensus(request_.class_count, gradients_->rows(), config_.per_class);
  const auto add = [&](const MicroBatch& batch, const UnitVectors& vectors) { consensus.add(vectors, batch.labels); };
  if (!walk_first(add)) return false;
  consensus.reduce(communicator_);
  strength_ = consensus.strength();
  return walk([&](const MicroBatch& batch, const UnitVectors& vectors) {
    take_scores(batch, vectors, consensus.agreement(vectors, batch.labels, kLowestScore));
  });
}

bool ExampleScores::agree_with_nearest() {
  ClusterDirections clusters(config_.per_class ? request_.class_count : 1, config_.clusters, gradients_->rows());
  const std::vector<std::int64_t> one_group(static_cast<std::size_t>(config_.batch_size), 0);
  const auto groups_of = [&](const MicroBatch& batch) {
    return config_.per_class ? batch.labels : std::span(one_group).first(batch.ids.size());
  };
  const auto add = [&](const MicroBatch& batch, const UnitVectors& vectors) {
    clusters.add(vectors, groups_of(batch));
  };
  begin_clusters(clusters);
  if (!walk_first(add)) return false;
  for (std::int64_t walks = 1; clusters.move(communicator_) && walks < kClusterWalks; ++walks) {
    if (!walk(add)) return false;
  }
  strength_ = clusters.strength();
  return walk([&](const MicroBatch& batch, const UnitVectors& vectors) {
    take_scores(batch, vectors, clusters.agreement(vectors, groups_of(batch), kLowestScore));
  });
}

/// ALL ranks: the first directions, from a sample that is the same whatever the number of ranks.
void ExampleScores::begin_clusters(ClusterDirections& clusters) {
  const std::vector<std::int64_t> one_group(config_.per_class ? 0 : request_.labels.size(), 0);
  const std::span<const std::int64_t> groups = config_.per_class ? request_.labels : std::span(one_group);
  const auto members = members_of_classes(groups, config_.per_class ? request_.class_count : 1);
  std::vector<std::int64_t> sample;
  for (std::size_t group = 0; group < members.size(); ++group) {
    const auto count = static_cast<std::int64_t>(members[group].size());
    const RandomStream stream(request_.seed, "cluster sample", request_.round, static_cast<std::uint32_t>(group));
    const std::vector<std::int64_t> order = random_permutation(count, stream);
    for (std::int64_t i = 0; i < std::min(count, kClusterSample * config_.clusters); ++i) {
      sample.push_back(members[group][static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]);
    }
  }
  std::sort(sample.begin(), sample.end());
  std::vector<std::int64_t> group_of, offsets;
  const auto [first, last] = plan_.positions_of(communicator_.rank());
  for (const std::int64_t position : sample) {
    group_of.push_back(groups[static_cast<std::size_t>(position)]);
    if (position >= first && position < last) offsets.push_back(position - first);
  }
  const at::Tensor mine = gradients_->directions_at(offsets).to(communicator_.device());
  clusters.begin(communicator_.all_gather_rows(mine).cpu(), group_of, request_.seed, request_.round);
}

bool ExampleScores::walk_first(const UseVectors& use) {
  return gradients_->walk_first(
      [&](const MicroBatch& batch, const UnitVectors& vectors, const at::Tensor& squared_norms) {
        use(batch, vectors);
        if (squared_norms.defined()) append_norms(squared_norms);
      },
      count_suspects(), doubts_labels(config_));
}

bool ExampleScores::walk(const UseVectors& use) {
  return gradients_->walk(
      [&](const MicroBatch& batch, const UnitVectors& vectors, const at::Tensor&) { use(batch, vectors); });
}

void ExampleScores::take_scores(const MicroBatch& batch, const UnitVectors& vectors,
                                const std::vector<float>& agreement) {
  std::copy(agreement.begin(), agreement.end(), scores_.begin() + batch.offset);
  degenerate_ += std::count(vectors.degenerate.begin(), vectors.degenerate.end(), true);
}

void ExampleScores::append_norms(const at::Tensor& squared_norms) {
  const at::Tensor norms = squared_norms.to(at::kCPU, at::kDouble).sqrt().neg().to(at::kFloat);
  const at::Tensor finite = at::nan_to_num(norms, std::numeric_limits<float>::lowest()).contiguous();
  peers_.gradient_norm.insert(peers_.gradient_norm.end(), finite.const_data_ptr<float>(),
                              finite.const_data_ptr<float>() + finite.numel());
}

bool ExampleScores::by_norm() {
  const at::Tensor nothing =
      at::zeros({1, request_.source->dimension()}, at::TensorOptions(request_.source->device()).dtype(at::kFloat));
  return passes_.project(
      nothing,
      [&](const MicroBatch& batch, const at::Tensor&, const at::Tensor& squared_norms) {
        if (doubts_labels(config_)) append_norms(squared_norms);
        const at::Tensor squares = squared_norms.to(at::kCPU, at::kDouble);
        for (std::int64_t i = 0; i < squares.size(0); ++i) {
          const double norm = std::sqrt(squares.const_data_ptr<double>()[i]);
          if (norm > 0.0 && std::isfinite(norm)) {
            scores_[static_cast<std::size_t>(batch.offset + i)] = static_cast<float>(norm);
          } else {
            ++degenerate_;
          }
        }
      },
      count_suspects(), true);
}

// Ranks hold contiguous runs in rank order, so that the concatenation is in the order of ids.
std::vector<float> ExampleScores::gather(const std::vector<float>& values) {
  at::Tensor mine = at::empty({static_cast<std::int64_t>(values.size())}, at::kFloat);
  std::copy(values.begin(), values.end(), mine.mutable_data_ptr<float>());
  const at::Tensor all = communicator_.all_gather_rows(mine.to(communicator_.device())).cpu();
  require(all.size(0) == static_cast<std::int64_t>(request_.ids.size()), "scores of some examples are missing");
  return {all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.size(0)};
}

void ExampleScores::gather(SelectionResult& result) {
  result.scores = gather(scores_);
  result.consensus_strength = strength_;
  if (!doubts_labels(config_)) return;
  result.peers.small_loss = gather(peers_.small_loss);
  result.peers.confident_learning = gather(peers_.confident_learning);
  result.peers.gradient_norm = gather(peers_.gradient_norm);
  doubts_.reduce_counts(communicator_);
}

}  // namespace sage
