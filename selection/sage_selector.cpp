#include "selection/sage_selector.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "core/error.h"
#include "core/random_projection.h"
#include "selection/consensus.h"
#include "selection/gradient_passes.h"
#include "selection/gradient_sketch.h"
#include "selection/label_filter.h"
#include "selection/quota.h"
#include "selection/random_subset.h"

namespace sage {
namespace {

/// Adds the time that it lives to `seconds`.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_;
};

/// Has the source keep what it computes while it lives.
class CachingSource {
 public:
  CachingSource(GradientSource& source, bool on) : source_(source) { source_.set_caching(on); }
  ~CachingSource() {
    try {
      source_.set_caching(false);
    } catch (...) {  // forgetting is best effort: the source is about to be destroyed or used with caching off
    }
  }
  CachingSource(const CachingSource&) = delete;
  CachingSource& operator=(const CachingSource&) = delete;

 private:
  GradientSource& source_;
};

void expect_one_of(const char* key, const std::string& value, std::initializer_list<const char*> values) {
  std::string names;
  for (const char* name : values) {
    if (value == name) return;
    names += names.empty() ? name : fmt::format(", {}", name);
  }
  throw ConfigError(fmt::format("{} must be one of {} (it is `{}`)", key, names, value));
}

class SageSelector {
 public:
  explicit SageSelector(const SelectionRequest& request)
      : request_(request),
        config_(request.config),
        source_(*request.source),
        communicator_(request.communicator),
        subset_size_(subset_size(config_.fraction, static_cast<std::int64_t>(request.ids.size()))),
        plan_(plan_shards(static_cast<std::int64_t>(request.ids.size()),
                          std::max<std::int64_t>(largest_size(config_.sketch), 1), config_.shards,
                          communicator_.size())),
        passes_(request_, plan_),
        doubts_(request.class_count) {
    check();
    result_.method = "sage";
  }

  /// The whole method. ALL ranks.
  SelectionResult run() {
    const std::int64_t bytes_before = communicator_.traffic().bytes_sent;
    const CachingSource caching(source_, keeps_scores());
    if (by_agreement()) {
      const at::Tensor sketch = sketch_gradients();
      score_by_agreement(sketch);
    } else {
      score_by_norm();
    }
    choose();
    share_statistics(communicator_.traffic().bytes_sent - bytes_before);
    return std::move(result_);
  }

 private:
  bool by_agreement() const { return config_.scoring == "agreement"; }
  bool filters() const { return config_.keep == "filter"; }
  bool counts_doubts() const { return filters() && config_.filter.drop < 0.0; }
  bool sketches() const { return by_agreement() && config_.sketch.method == "fd"; }

  void check() const {
    expect_one_of("selection.scoring", config_.scoring, {"agreement", "gradient_norm"});
    expect_one_of("selection.keep", config_.keep, {"top", "filter"});
    expect_one_of("selection.sketch.method", config_.sketch.method, {"fd", "random_projection"});
    expect_one_of("selection.scores", config_.scores, {"auto", "cached", "recomputed"});
    expect_one_of("selection.compression", config_.compression, {"auto", "cpu", "gpu"});
    if (config_.batch_size < 1) throw ConfigError("selection.batch_size must be at least 1");
    if (config_.sketch.size != 0 && config_.sketch.size < 2) {
      throw ConfigError("selection.sketch.size must be at least 2, or `auto`");
    }
    if (config_.sketch.size == 0 && config_.sketch.max_size < 2) {
      throw ConfigError("selection.sketch.max_size must be at least 2");
    }
    if (filters() && !counts_doubts()) fixed_cut(config_.filter.drop, {});
    require(source_.class_count() == request_.class_count,
            "the source and the request differ in the number of classes");
  }

  /// Whether z and features are kept between passes. The same on every rank: decided by the rank with most examples.
  bool keeps_scores() {
    if (!by_agreement()) return false;
    const std::int64_t rows =
        is_exact(config_.sketch, source_.dimension()) ? source_.dimension() : largest_size(config_.sketch);
    const double bytes = static_cast<double>(plan_.most_positions()) *
                         (4.0 * static_cast<double>(rows) + static_cast<double>(source_.cacheable_bytes_per_example()));
    const bool fits = bytes <= static_cast<double>(config_.memory_limit_mib) * 1048576.0;
    keeps_scores_ = config_.scores == "cached" || (config_.scores == "auto" && fits);
    result_.scores_kept = keeps_scores_ ? "cached" : "recomputed";
    return keeps_scores_;
  }

  at::Device sketch_device() {
    if (config_.compression == "gpu" && source_.device().is_cpu()) {
      result_.warnings.push_back("selection.compression: gpu, but the model is on the CPU: sketching on the CPU");
    }
    return config_.compression == "cpu" ? at::Device(at::kCPU) : source_.device();
  }

  /// Pass 1: S, on the source's device, the same on every rank.
  at::Tensor sketch_gradients() {
    if (!sketches()) {
      const Stopwatch watch(result_.seconds.sketch);
      count_thresholds_by_projection();
      const std::int64_t size = largest_size(config_.sketch);
      result_.certificate = Certificate{};
      result_.certificate->sketch = "random projection";
      result_.certificate->size = result_.certificate->rows = size;
      result_.certificate->shards = plan_.shard_count();
      return random_projection(request_.seed, size, source_.dimension(), source_.device());
    }

    const std::unique_ptr<GradientSketch> sketch =
        make_gradient_sketch(config_.sketch, source_.dimension(), sketch_device(), plan_, config_.batch_size);
    {
      const Stopwatch watch(result_.seconds.sketch);
      GradientPasses::UseProbabilities use_probabilities;
      if (counts_doubts()) {
        use_probabilities = [&](const at::Tensor& p, auto labels) { doubts_.add_threshold(p, labels); };
      }
      result_.non_finite = passes_.sketch(*sketch, use_probabilities);
    }
    const Stopwatch watch(result_.seconds.merge);
    if (counts_doubts()) doubts_.reduce_thresholds(communicator_);
    const SketchState merged = sketch->merge(communicator_);
    certify(merged);
    return merged.rows.to(source_.device());
  }

  void certify(const SketchState& merged) {
    Certificate certificate;
    certificate.exact = merged.rule.lossless();
    certificate.sketch = is_exact(config_.sketch, source_.dimension()) ? "exact covariance" : "frequent directions";
    certificate.error_bound = merged.error_bound;
    certificate.largest_eigenvalue = merged.largest_eigenvalue();
    certificate.relative_error =
        certificate.largest_eigenvalue > 0.0 ? merged.error_bound / certificate.largest_eigenvalue : 0.0;
    certificate.squared_norm = merged.squared_norm;
    certificate.size = merged.rule.size;
    certificate.rows = merged.row_count();
    certificate.rows_seen = merged.rows_seen;
    certificate.shards = plan_.shard_count();
    result_.certificate = certificate;
  }

  /// Where no first pass runs, the thresholds of confident counting need one of their own: a projection onto nothing.
  void count_thresholds_by_projection() {
    if (!counts_doubts()) return;
    passes_.project(nothing(), {}, [&](const at::Tensor& p, auto labels) { doubts_.add_threshold(p, labels); });
    doubts_.reduce_thresholds(communicator_);
  }

  at::Tensor nothing() const {
    return at::zeros({1, source_.dimension()}, at::TensorOptions(source_.device()).dtype(at::kFloat));
  }

  GradientPasses::UseProbabilities count_suspects() {
    if (!counts_doubts()) return {};
    return [&](const at::Tensor& p, auto labels) { doubts_.count(p, labels); };
  }

  /// Pass 2, and, where nothing is kept of it, a third for the scores.
  void score_by_agreement(const at::Tensor& sketch) {
    const Stopwatch watch(result_.seconds.score);
    Consensus consensus(request_.class_count, sketch.size(0), config_.per_class);
    std::vector<std::pair<MicroBatch, UnitVectors>> kept;
    passes_.project(
        sketch,
        [&](const MicroBatch& batch, const at::Tensor& projected, const at::Tensor&) {
          UnitVectors vectors = to_unit_length(projected);
          consensus.add(vectors, batch.labels);
          if (keeps_scores_) kept.emplace_back(batch, std::move(vectors));
        },
        count_suspects());
    consensus.reduce(communicator_);
    result_.consensus_strength = consensus.strength();

    scores_.assign(static_cast<std::size_t>(passes_.example_count()), kLowestScore);
    const auto score = [&](const MicroBatch& batch, const UnitVectors& vectors) {
      const std::vector<float> agreement = consensus.agreement(vectors, batch.labels, kLowestScore);
      std::copy(agreement.begin(), agreement.end(), scores_.begin() + batch.offset);
      degenerate_ += std::count(vectors.degenerate.begin(), vectors.degenerate.end(), true);
    };
    for (const auto& [batch, vectors] : kept) score(batch, vectors);
    if (!keeps_scores_) {
      passes_.project(sketch,
                      [&](const MicroBatch& batch, const at::Tensor& projected, const at::Tensor&) {
                        score(batch, to_unit_length(projected));
                      },
                      {});
    }
    gather_scores();
  }

  /// One pass: ||g_i||. The projection is onto nothing; the source computes norms on the way.
  void score_by_norm() {
    const Stopwatch watch(result_.seconds.score);
    count_thresholds_by_projection();
    scores_.assign(static_cast<std::size_t>(passes_.example_count()), kLowestScore);
    passes_.project(
        nothing(),
        [&](const MicroBatch& batch, const at::Tensor&, const at::Tensor& squared_norms) {
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
        count_suspects());
    gather_scores();
  }

  /// ALL ranks. Ranks hold contiguous runs in rank order, so that the concatenation is in the order of ids.
  void gather_scores() {
    at::Tensor mine = at::empty({static_cast<std::int64_t>(scores_.size())}, at::kFloat);
    std::copy(scores_.begin(), scores_.end(), mine.mutable_data_ptr<float>());
    const at::Tensor all = communicator_.all_gather_rows(mine.to(communicator_.device())).cpu();
    require(all.size(0) == static_cast<std::int64_t>(request_.ids.size()), "scores of some examples are missing");
    result_.scores.assign(all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.size(0));
    if (counts_doubts()) doubts_.reduce_counts(communicator_);
  }

  /// From here on every rank has all scores and does the same.
  void choose() {
    const Stopwatch watch(result_.seconds.choose);
    const std::vector<std::int64_t> chosen = filters() ? choose_after_filter() : choose_top();
    for (std::int64_t position : chosen) result_.kept.push_back(request_.ids[static_cast<std::size_t>(position)]);
    describe_classes(request_, result_);
  }

  std::vector<std::int64_t> choose_top() const {
    if (!config_.per_class) return highest(result_.scores, subset_size_);
    const std::vector<std::int64_t> available = count_classes(request_.labels, request_.class_count);
    return highest_of_each_class(result_.scores, request_.labels, class_quota(subset_size_, available));
  }

  std::vector<std::int64_t> choose_after_filter() {
    const auto count = static_cast<std::int64_t>(request_.ids.size());
    std::vector<std::int64_t> cut;
    if (counts_doubts()) {
      const std::vector<std::int64_t> suspects = doubts_.suspects();
      const std::int64_t total = std::accumulate(suspects.begin(), suspects.end(), std::int64_t{0});
      result_.estimated_noise = static_cast<double>(total) / static_cast<double>(count);
      cut = gated_cut(suspects, config_.filter.gate, count);
    } else {
      cut = fixed_cut(config_.filter.drop, count_classes(request_.labels, request_.class_count));
    }
    const std::int64_t most = count - subset_size_;
    if (const std::int64_t total = std::accumulate(cut.begin(), cut.end(), std::int64_t{0}); total > most) {
      result_.warnings.push_back(
          fmt::format("{} labels are in doubt, but selection.fraction {} leaves room to cut only {}", total,
                      config_.fraction, most));
      cut = split_by_weight(most, cut, cut);
    }
    const std::vector<std::int64_t> doubtful = least_trusted(trust(), request_.labels, cut);
    for (std::int64_t position : doubtful) result_.doubtful.push_back(request_.ids[static_cast<std::size_t>(position)]);
    return draw_balanced(request_.labels, request_.class_count, doubtful, subset_size_, request_.seed, "filter",
                         request_.round);
  }

  /// Agreement; or, where norms were taken, the smaller the more trusted, and gradients that are not finite not at all.
  std::vector<float> trust() const {
    std::vector<float> trust = result_.scores;
    if (by_agreement()) return trust;
    for (float& value : trust) value = value == kLowestScore ? -std::numeric_limits<float>::infinity() : -value;
    return trust;
  }

  /// ALL ranks: counts of all.
  void share_statistics(std::int64_t bytes_sent) {
    at::Tensor sums = at::tensor(
        {static_cast<double>(degenerate_), static_cast<double>(result_.non_finite), static_cast<double>(bytes_sent)},
        at::kDouble);
    all_reduce_sum_anywhere(communicator_, sums);
    const double* sum = sums.const_data_ptr<double>();
    result_.degenerate = static_cast<std::int64_t>(sum[0]);
    result_.non_finite = static_cast<std::int64_t>(sum[1]);
    result_.bytes_sent = static_cast<std::int64_t>(sum[2]);
    if (result_.degenerate > 0) {
      result_.warnings.push_back(
          fmt::format("{} of {} examples have a projected gradient that is zero or not finite: they "
                      "get the lowest score",
                      result_.degenerate, request_.ids.size()));
    }
  }

  const SelectionRequest& request_;
  const SelectionConfig& config_;
  GradientSource& source_;
  Communicator& communicator_;
  const std::int64_t subset_size_;
  const ShardPlan plan_;
  const GradientPasses passes_;
  ConfidentCounting doubts_;
  bool keeps_scores_ = false;
  std::vector<float> scores_;  // of this rank's examples
  std::int64_t degenerate_ = 0;
  SelectionResult result_;
};

}  // namespace

SelectionResult select_sage(const SelectionRequest& request) {
  const at::NoGradGuard no_grad;
  return SageSelector(request).run();
}

}  // namespace sage
