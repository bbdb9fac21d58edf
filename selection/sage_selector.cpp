#include "selection/sage_selector.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/random_projection.h"
#include "core/stopwatch.h"
#include "core/trace.h"
#include "selection/consensus.h"
#include "selection/coverage.h"
#include "selection/example_scores.h"
#include "selection/gradient_passes.h"
#include "selection/gradient_sketch.h"
#include "selection/label_filter.h"
#include "selection/quota.h"
#include "selection/selection_state.h"

namespace sage {
namespace {

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
        plan_(plan_shards(static_cast<std::int64_t>(request.ids.size()),
                          std::max<std::int64_t>(largest_size(config_.sketch), 1), config_.shards,
                          communicator_.size())),
        passes_(request_, plan_),
        doubts_(request.class_count),
        scores_(request_, plan_, passes_, doubts_) {
    check();
    result_.method = "sage";
    progress_.rows_done.assign(static_cast<std::size_t>(plan_.shard_count()), 0);
  }

  /// The whole method. ALL ranks.
  SelectionResult run() {
    bytes_before_ = communicator_.traffic().bytes_sent;
    restore();
    const CachingSource caching(source_, keeps_anything());
    score(by_agreement() ? sketch_gradients() : at::Tensor());
    {
      const SecondsAdder watch(result_.seconds.choose);
      const trace::Span span("choose", trace::keeps_all());
      choose_by_score(
          request_, doubts_labels(config_) && finds_the_cut() ? &doubts_ : nullptr,
          [&](std::span<const std::int64_t> excluded, std::int64_t total) { return draw(excluded, total); }, result_);
    }
    share_statistics();
    return std::move(result_);
  }

 private:
  bool by_agreement() const { return config_.scoring == "agreement"; }
  bool finds_the_cut() const { return config_.filter.drop < 0.0; }
  bool sketches() const { return by_agreement() && config_.sketch.method == "fd"; }

  /// ALL ranks: keep: coverage.
  std::vector<std::int64_t> draw(std::span<const std::int64_t> excluded, std::int64_t total) {
    if (config_.coverage == "stratified") {
      return draw_stratified(result_.scores, request_.labels, request_.class_count, excluded, total, request_.seed,
                             request_.round);
    }
    return draw_covering(config_.coverage, scores_.gradients(), plan_, request_.labels, request_.class_count, excluded,
                         total, communicator_);
  }

  void check() const {
    expect_one_of("selection.scoring", config_.scoring, {"agreement", "gradient_norm"});
    expect_one_of("selection.keep", config_.keep, {"top", "filter", "coverage"});
    expect_one_of("selection.coverage", config_.coverage, {"stratified", "farthest_first", "facility_location"});
    expect_one_of("selection.sketch.method", config_.sketch.method, {"fd", "random_projection"});
    expect_one_of("selection.scores", config_.scores, {"auto", "cached", "recomputed"});
    expect_one_of("selection.compression", config_.compression, {"auto", "cpu", "gpu"});
    expect_one_of("selection.cache_precision", config_.cache_precision, {"float32", "bf16"});
    expect_one_of("selection.sketch.projection_precision", config_.sketch.projection_precision, {"float32", "bf16"});
    projection_kind(config_.sketch.projection);
    if (config_.clusters < 1) throw ConfigError("selection.clusters must be at least 1");
    if (!by_agreement() && config_.clusters > 1) {
      throw ConfigError(
          "selection.clusters above 1 needs selection.scoring: agreement (gradient norms have no direction)");
    }
    if (!by_agreement() && config_.keep == "coverage" && config_.coverage != "stratified") {
      throw ConfigError(
          fmt::format("selection.coverage: {} needs selection.scoring: agreement (gradient norms have no direction)",
                      config_.coverage));
    }
    if (config_.batch_size < 1) throw ConfigError("selection.batch_size must be at least 1");
    if (config_.sketch.size != 0 && config_.sketch.size < 2) {
      throw ConfigError("selection.sketch.size must be at least 2, or `auto`");
    }
    if (config_.sketch.size == 0 && config_.sketch.max_size < 2) {
      throw ConfigError("selection.sketch.max_size must be at least 2");
    }
    expect_one_of("selection.filter.count", config_.filter.count, {"either", "chance", "confident"});
    expect_one_of("selection.filter.by", config_.filter.by, {"agreement", "small_loss", "confident_learning"});
    if (doubts_labels(config_) && !finds_the_cut()) fixed_cut(config_.filter.drop, {});
    subset_size(config_.fraction, static_cast<std::int64_t>(request_.ids.size()));
    require(source_.class_count() == request_.class_count,
            "the source and the request differ in the number of classes");
  }

  /// Whether anything is kept between passes: features where the source can, which are smaller than z = S g and make it
  /// again at little cost, else z. The same on every rank: decided by the rank with most examples.
  bool keeps_anything() {
    if (!by_agreement()) return false;
    const std::int64_t feature_bytes = source_.cacheable_bytes_per_example();
    const std::int64_t rows =
        is_exact(config_.sketch, source_.dimension()) ? source_.dimension() : largest_size(config_.sketch);
    const std::int64_t vector_bytes = (config_.cache_precision == "bf16" ? 2 : 4) * rows;
    const double bytes = static_cast<double>(plan_.most_positions()) *
                         static_cast<double>(feature_bytes > 0 ? feature_bytes : vector_bytes);
    const bool fits = bytes <= static_cast<double>(config_.memory_limit_mib) * 1048576.0;
    const bool keeps = config_.scores == "cached" || (config_.scores == "auto" && fits);
    keeps_vectors_ = keeps && feature_bytes == 0;
    result_.scores_kept = keeps ? "cached" : "recomputed";
    return keeps;
  }

  at::Device sketch_device() {
    if (config_.compression == "gpu" && source_.device().is_cpu()) {
      result_.warnings.push_back("selection.compression: gpu, but the model is on the CPU: sketching on the CPU");
    }
    return config_.compression == "cpu" ? at::Device(at::kCPU) : source_.device();
  }

  /// ALL ranks: takes up where an earlier selection stopped, if there was one.
  void restore() {
    const SelectionState* state = request_.resume_from;
    bool is_scoring = false;
    if (state != nullptr) {
      const std::string json = text_of_first(communicator_, state->json);
      const SelectionProgress progress = progress_from_json(json, request_, plan_);
      progress_.rows_done = progress.rows_done;
      result_.seconds = progress.seconds;
      if (communicator_.rank() == 0) bytes_before_ -= progress.bytes_sent;
      is_scoring = progress.is_scoring;
    }
    if (sketches()) {
      const at::Device device = sketch_device();
      if (!is_scoring) {
        sketch_ = make_gradient_sketch(config_.sketch, source_.dimension(), device, plan_, communicator_.rank(),
                                       config_.batch_size);
      }
    }
    if (state == nullptr) return;
    if (sketches() && is_scoring) merged_.emplace();
    hand_out(communicator_, state->tensors, [&](const std::string& name, const at::Tensor& tensor) {
      const std::vector<std::string> parts = parts_of_name(name);
      if (parts[0] == "counts") {
        // Of ranks that there were: those that there are add them up.
        if (tensor.numel() != 1 + 2 * request_.class_count) damaged_selection(name + " is of another size");
        if (number_in_name(name, 1) % communicator_.size() != communicator_.rank()) return;
        const at::Tensor counts = tensor.to(at::kCPU, at::kDouble);
        progress_.non_finite += static_cast<std::int64_t>(counts[0].item<double>());
        doubts_.add_threshold_sums(counts.narrow(0, 1, 2 * request_.class_count).view({2, -1}));
      } else if (name == "thresholds") {
        const at::Tensor values = tensor.to(at::kCPU, at::kDouble);
        if (values.numel() != request_.class_count) damaged_selection(name + " are of another size");
        doubts_.set_thresholds({values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()});
      } else if (parts[0] == "merged" && parts.size() == 2 && merged_) {
        take_tensor(*merged_, parts[1], tensor, source_.device());
      } else if (sketch_) {
        sketch_->restore(name, tensor);
      } else {
        damaged_selection(fmt::format("nothing is known of a tensor `{}`", name));
      }
    });
    communicator_.all_or_none([&] {
      if (sketch_) sketch_->check_restored(progress_.rows_done);
      if (merged_) check_sketch(*merged_, source_.dimension());
      if (merged_ && doubts_labels(config_) && doubts_.thresholds().empty())
        damaged_selection("thresholds are missing");
    });
  }

  /// ALL ranks: leaves with all that is needed to go on.
  [[noreturn]] void stop() {
    const bool is_scoring = sketch_ == nullptr;
    std::vector<NamedTensor> mine;
    if (!is_scoring) mine = sketch_->save();
    // A pass over the probabilities alone begins anew.
    at::Tensor counts = at::zeros({1 + 2 * request_.class_count}, at::kDouble);
    counts[0] = static_cast<double>(progress_.non_finite);
    if (!is_scoring) counts.narrow(0, 1, 2 * request_.class_count).copy_(doubts_.threshold_sums().flatten());
    mine.push_back({fmt::format("counts.{}", communicator_.rank()), counts});
    if (communicator_.rank() == 0) {
      if (merged_) {
        const std::vector<NamedTensor> merged = to_tensors(*merged_, "merged");
        mine.insert(mine.end(), merged.begin(), merged.end());
      }
      if (is_scoring && !doubts_.thresholds().empty()) {
        mine.push_back({"thresholds", at::tensor(doubts_.thresholds(), at::kDouble)});
      }
    }

    // Of the shards each rank knows its own, and everybody's bytes are counted.
    const auto [first_shard, last_shard] = plan_.shards_of(communicator_.rank());
    at::Tensor known = at::zeros({plan_.shard_count() + 1}, at::kLong);
    for (std::int64_t shard = first_shard; shard < last_shard; ++shard) {
      known[shard] = progress_.rows_done[static_cast<std::size_t>(shard)];
    }
    known[plan_.shard_count()] = communicator_.traffic().bytes_sent - bytes_before_;
    all_reduce_sum_anywhere(communicator_, known);
    SelectionProgress progress;
    progress.is_scoring = is_scoring;
    progress.rows_done.assign(known.const_data_ptr<std::int64_t>(),
                              known.const_data_ptr<std::int64_t>() + plan_.shard_count());
    progress.seconds = result_.seconds;
    progress.bytes_sent = known[plan_.shard_count()].item<std::int64_t>();

    SelectionState state;
    state.tensors = gather_to_first(communicator_, mine);
    if (communicator_.rank() == 0) state.json = progress_to_json(progress, request_, plan_.shard_count());
    throw SelectionStopped(std::move(state));
  }

  /// Pass 1: S, on the source's device, the same on every rank.
  at::Tensor sketch_gradients() {
    if (!sketches()) {
      const SecondsAdder watch(result_.seconds.sketch);
      const trace::Span span("sketch pass", trace::keeps_all());
      count_thresholds_by_projection();
      const std::int64_t size = largest_size(config_.sketch);
      result_.certificate = Certificate{};
      result_.certificate->sketch = "random projection";
      result_.certificate->size = result_.certificate->rows = size;
      result_.certificate->shards = plan_.shard_count();
      RandomProjectionOptions options;
      options.seed = request_.seed;
      options.size = size;
      options.dimension = source_.dimension();
      options.kind = projection_kind(config_.sketch.projection);
      options.density = config_.sketch.density;
      options.device = source_.device();
      if (config_.sketch.projection_precision == "bf16") options.type = at::kBFloat16;
      return random_projection(options);
    }
    if (!merged_) {
      bool is_whole = false;
      {
        const SecondsAdder watch(result_.seconds.sketch);
        const trace::Span span("sketch pass", trace::keeps_all());
        GradientPasses::UseProbabilities use_probabilities;
        if (doubts_labels(config_)) {
          use_probabilities = [&](const at::Tensor& p, auto labels) { doubts_.add_threshold(p, labels); };
        }
        is_whole = passes_.sketch(*sketch_, progress_, use_probabilities);
      }
      if (!is_whole) stop();
      const SecondsAdder watch(result_.seconds.merge);
      const trace::Span span("merge", trace::keeps_all());
      if (doubts_labels(config_)) doubts_.reduce_thresholds(communicator_);
      merged_ = sketch_->merge(communicator_);
      sketch_.reset();
    }
    certify(*merged_);
    return merged_->rows.to(source_.device());
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
    if (!doubts_labels(config_) || !doubts_.thresholds().empty()) return;
    const at::Tensor nothing =
        at::zeros({1, source_.dimension()}, at::TensorOptions(source_.device()).dtype(at::kFloat));
    if (!passes_.project(nothing, {}, [&](const at::Tensor& p, auto labels) { doubts_.add_threshold(p, labels); })) {
      stop();
    }
    doubts_.reduce_thresholds(communicator_);
  }

  /// Pass 2 and, where nothing is kept of it, further ones.
  void score(at::Tensor sketch) {
    const SecondsAdder watch(result_.seconds.score);
    const trace::Span span("score pass", trace::keeps_all());
    if (!by_agreement()) count_thresholds_by_projection();
    if (!(by_agreement() ? scores_.by_agreement(std::move(sketch), keeps_vectors_) : scores_.by_norm())) stop();
    scores_.gather(result_);
  }

  /// ALL ranks: counts of all.
  void share_statistics() {
    const auto bytes_sent = static_cast<double>(communicator_.traffic().bytes_sent - bytes_before_);
    at::Tensor sums =
        at::tensor({static_cast<double>(scores_.degenerate()), static_cast<double>(progress_.non_finite), bytes_sent},
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
  const ShardPlan plan_;
  const GradientPasses passes_;
  ConfidentCounting doubts_;
  ExampleScores scores_;
  std::int64_t bytes_before_ = 0;
  GradientPasses::SketchProgress progress_;
  std::unique_ptr<GradientSketch> sketch_;  // while pass 1 goes on
  std::optional<SketchState> merged_;       // what came of it
  bool keeps_vectors_ = false;              // z of all examples of this rank
  SelectionResult result_;
};

}  // namespace

SelectionResult select_sage(const SelectionRequest& request) {
  const at::NoGradGuard no_grad;
  return SageSelector(request).run();
}

}  // namespace sage
