#include "training/subset_selection.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>

#include "core/log.h"
#include "core/whereabouts.h"
#include "selection/choice.h"
#include "selection/detection.h"
#include "selection/difficulty.h"
#include "selection/registry.h"
#include "training/model_gradient_source.h"

namespace sage {
namespace {

/// Both ascending.
std::int64_t count_common(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  return std::count_if(a.begin(), a.end(), [&](std::int64_t id) { return std::binary_search(b.begin(), b.end(), id); });
}

/// In place of a new learning rate: the losses of a weighted subset stay of the size of others.
std::vector<float> with_mean_one(std::vector<float> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double scale = sum > 0.0 ? static_cast<double>(weights.size()) / sum : 0.0;
  for (float& weight : weights) weight = static_cast<float>(weight * scale);
  return weights;
}

SubsetRecord to_record(const SelectionResult& result, const Experiment& experiment) {
  const SelectionConfig& config = experiment.config.selection;
  SubsetRecord record;
  record.method = result.method;
  const bool is_sage = result.method == "sage";
  record.scoring = is_sage ? config.scoring : result.scoring;
  record.keep = is_sage ? config.keep : "";
  record.fraction = config.fraction;
  record.candidates = static_cast<std::int64_t>(experiment.candidates.size());
  record.ids = result.kept;
  record.weights = with_mean_one(result.weights);
  record.class_histogram = result.class_histogram;
  record.class_names = experiment.dataset.class_names;
  if (const auto& certificate = result.certificate) {
    record.sketch_rows = certificate->rows;
    record.certificate = certificate->error_bound;
    record.relative_certificate = certificate->relative_error;
    record.notes.push_back(fmt::format("sketch: {} of size {}{}, {} logical shards; scores {}", certificate->sketch,
                                       certificate->size, certificate->exact ? " (exact: nothing was lost)" : "",
                                       certificate->shards, result.scores_kept));
  }
  if (result.non_finite > 0) {
    record.notes.push_back(
        fmt::format("{} gradients were not finite and were left out of the sketch", result.non_finite));
  }
  record.phase_seconds = {{"sketch", result.seconds.sketch},
                          {"merge", result.seconds.merge},
                          {"score", result.seconds.score},
                          {"choose", result.seconds.choose}};
  record.noise_rate = result.estimated_noise;
  record.bytes_sent = result.bytes_sent;
  record.doubtful_ids = result.doubtful;
  record.without_direction = result.degenerate;
  record.notes.insert(record.notes.end(), result.warnings.begin(), result.warnings.end());
  return record;
}

/// How well a low score finds the labels that were made wrong.
void describe_detection(std::span<const float> scores, const Experiment& experiment, SubsetRecord& record) {
  if (scores.empty()) return;
  const auto& ids = experiment.candidates;
  const auto count = static_cast<std::int64_t>(experiment.corrupted.size());
  record.wrong_labels_auroc = auroc(scores, membership(ids, experiment.corrupted));
  record.wrong_labels_precision = precision_recall(lowest_scored(ids, scores, count), experiment.corrupted).precision;
}

/// How well the doubts of `result`, and those of others, as many, find the labels that were made wrong.
void judge_doubts(SubsetRecord& record, const SelectionResult& result, const Experiment& experiment) {
  const std::vector<std::int64_t>& ids = experiment.candidates;
  std::vector<std::int64_t> wrong;  // those that could be doubted
  std::set_intersection(ids.begin(), ids.end(), experiment.corrupted.begin(), experiment.corrupted.end(),
                        std::back_inserter(wrong));
  if (wrong.empty() || result.peers.small_loss.empty()) return;
  const std::vector<bool> is_wrong = membership(ids, wrong);
  const auto judge = [&](std::span<const std::int64_t> suspects, std::span<const float> trust) {
    const PrecisionRecall found = precision_recall(suspects, wrong);
    return Detection{found.precision, found.recall, auroc(trust, is_wrong)};
  };
  const auto count = static_cast<std::int64_t>(result.doubtful.size());
  const auto judge_peer = [&](const std::vector<float>& trust) {
    return judge(lowest_scored(ids, trust, count), trust);
  };
  record.doubtful = judge(result.doubtful, trust_of(experiment.config.selection, result));
  record.peers = {{"small_loss", judge_peer(result.peers.small_loss)},
                  {"confident_learning", judge_peer(result.peers.confident_learning)},
                  {"gradient_norm", judge_peer(result.peers.gradient_norm)}};
}

void log_choice(const SubsetRecord& record, const Experiment& experiment) {
  const auto [smallest, largest] = std::minmax_element(record.class_histogram.begin(), record.class_histogram.end());
  std::string text = fmt::format("selection {} ({}{}): kept {} of {} in {:.2f} s, {} to {} of each class", record.round,
                                 record.method, record.keep.empty() ? "" : ", " + record.keep, record.ids.size(),
                                 record.candidates, record.seconds, *smallest, *largest);
  if (record.relative_certificate) text += fmt::format(", error bound {:.2g} lambda_1", *record.relative_certificate);
  if (record.overlap) text += fmt::format(", {:.1f} % as before", 100 * *record.overlap);
  if (record.noise_rate) text += fmt::format(", estimated wrong labels {:.1f} %", 100 * *record.noise_rate);
  if (!experiment.corrupted.empty()) {
    text += fmt::format(", wrong labels kept {}", *record.wrong_labels_kept);
    if (record.wrong_labels_auroc)
      text += fmt::format(", a low score finds them with AUROC {:.3f}", *record.wrong_labels_auroc);
    if (!record.doubtful_ids.empty()) {
      text +=
          fmt::format(", {} of {} doubted labels are wrong", *record.wrong_labels_doubted, record.doubtful_ids.size());
      if (record.doubtful && record.doubtful->recall) {
        text += fmt::format(" ({:.1f} % of the wrong ones)", 100 * *record.doubtful->recall);
      }
    }
  }
  log::info("{}", text);
}

}  // namespace

SubsetSelection::SubsetSelection(const Experiment& experiment, Job& job, Interruptions* interruptions)
    : experiment_(experiment),
      job_(job),
      interruptions_(interruptions),
      history_(
          wants_forgetting(experiment.config.selection)
              ? std::optional<ForgettingHistory>(std::in_place, static_cast<std::int64_t>(experiment.labels.size()))
              : std::nullopt),
      proxy_(experiment, job, interruptions, by_proxy() ? history() : nullptr) {}

bool SubsetSelection::by_proxy() const {
  const SelectionConfig& config = experiment_.config.selection;
  return config.scorer == "proxy" && (find_selection_method(config.method).needs_gradients || history_.has_value());
}

SubsetChoice SubsetSelection::choose(Classifier& current, std::int64_t round, std::int64_t completed_epochs,
                                     std::span<const std::int64_t> previous, const std::function<void()>& save) {
  clock_.emplace();
  SubsetChoice choice;
  for (const auto id : experiment_.candidates) {
    choice.scores.labels.push_back(experiment_.labels[static_cast<std::size_t>(id)]);
  }
  const SelectionConfig& config = experiment_.config.selection;
  const bool several = averages_networks(config) && config.early.models > 1;
  if (several) measure_difficulty(round, choice.scores.labels, save);
  Classifier& scorer = by_proxy() && !several ? proxy_.network(save) : current;
  whereabouts::set_activity("selection");
  const SelectionResult result = select(scorer, round, choice.scores.labels);

  SubsetRecord& record = choice.record = to_record(result, experiment_);
  record.epoch = completed_epochs;
  record.round = round;
  if (by_proxy() && round == 1) record.phase_seconds["proxy"] = proxy_.seconds();
  if (!previous.empty()) record.overlap = subset_overlap(record.ids, previous);
  if (!experiment_.corrupted.empty()) {
    record.wrong_labels_kept = count_common(record.ids, experiment_.corrupted);
    record.wrong_labels_doubted = count_common(record.doubtful_ids, experiment_.corrupted);
    describe_detection(result.scores, experiment_, record);
    judge_doubts(record, result, experiment_);
  }
  choice.scores.ids = experiment_.candidates;
  choice.scores.scores = result.scores;
  record.seconds = seconds_ + clock_->seconds();
  seconds_ = 0.0;
  clock_.reset();
  for (const auto& warning : result.warnings) log::warning("{}", warning);
  log_choice(record, experiment_);
  return choice;
}

void SubsetSelection::measure_difficulty(std::int64_t round, std::span<const std::int64_t> labels,
                                         const std::function<void()>& save) {
  const SelectionConfig& config = experiment_.config.selection;
  const std::string score = config.method == "ccs" ? config.ccs.score : config.method;
  difficulty_.sums.resize(experiment_.candidates.size(), 0.0);
  while (difficulty_.networks < config.early.models) {
    Classifier& network = proxy_.network(save, difficulty_.networks);
    whereabouts::set_activity("selection");
    with_request(network, round, labels, [&](SelectionRequest& request) {
      SelectionResult statistics;
      const std::vector<float> scores = difficulty_of(request, score, statistics);
      for (std::size_t i = 0; i < scores.size(); ++i) difficulty_.sums[i] += scores[i];
    });
    ++difficulty_.networks;
  }
}

SelectionResult SubsetSelection::select(Classifier& scorer, std::int64_t round, std::span<const std::int64_t> labels) {
  SelectionResult result;
  with_request(scorer, round, labels, [&](SelectionRequest& request) { result = select_examples(request); });
  return result;
}

void SubsetSelection::with_request(Classifier& scorer, std::int64_t round, std::span<const std::int64_t> labels,
                                   const std::function<void(SelectionRequest&)>& work) {
  const Config& config = experiment_.config;
  std::unique_ptr<ModelGradientSource> source;
  const bool was_training = scorer.is_training();
  scorer.eval();
  job_.communicator->all_or_none([&] {
    if (!find_selection_method(config.selection.method).needs_gradients) return;
    source = std::make_unique<ModelGradientSource>(scorer, *experiment_.train_images, experiment_.labels,
                                                   config.selection, config.training.label_smoothing);
  });
  std::vector<std::int64_t> validation_labels, forgotten;
  for (const auto id : experiment_.validation) {
    validation_labels.push_back(experiment_.labels[static_cast<std::size_t>(id)]);
  }
  if (history_ && !history_->is_empty()) forgotten = history_->forgotten(experiment_.candidates);
  std::vector<float> difficulty;
  if (config.selection.early.models > 1 && difficulty_.networks == config.selection.early.models) {
    for (const double sum : difficulty_.sums) {
      difficulty.push_back(static_cast<float>(sum / static_cast<double>(difficulty_.networks)));
    }
  }
  SelectionRequest request{.config = config.selection,
                           .seed = config.seed,
                           .round = static_cast<std::uint64_t>(round),
                           .ids = experiment_.candidates,
                           .labels = labels,
                           .class_count = experiment_.dataset.class_count,
                           .source = source.get(),
                           .communicator = *job_.communicator,
                           .validation_ids = experiment_.validation,
                           .validation_labels = validation_labels,
                           .forgotten = forgotten,
                           .difficulty = difficulty,
                           .resume_from = begun_ ? &*begun_ : nullptr};
  int signal = 0;
  if (interruptions_ != nullptr) {
    request.stop_requested = [&] {
      signal = interruptions_->agree_to_stop();
      return signal != 0;
    };
  }
  try {
    work(request);
    begun_.reset();
    scorer.train(was_training);
  } catch (const SelectionStopped& stopped) {
    begun_ = stopped.state();
    scorer.train(was_training);
    throw RunStopped(signal);
  }
}

void SubsetSelection::add_to(TrainingState& state, HostCopies& copies) {
  // Single selections have one round: nothing asks for the proxy after it.
  const bool is_needed = clock_ || begun_ || experiment_.config.selection.mode == "iterative";
  proxy_.add_to(state, copies, is_needed && (difficulty_.networks == 0 || clock_));
  state.selection = begun_;
  state.selection_seconds = seconds_ + (clock_ ? clock_->seconds() : 0.0);
  if (history_) state.memory = history_->state(*job_.communicator);
  if (difficulty_.sums.empty()) return;
  const ProxyEffort& effort = proxy_.earlier();
  state.memory.push_back({"difficulty.networks", at::full({1}, difficulty_.networks, at::kLong)});
  state.memory.push_back({"difficulty.sums", at::tensor(difficulty_.sums, at::kDouble)});
  state.memory.push_back({"difficulty.examples", at::full({1}, effort.examples, at::kLong)});
  state.memory.push_back({"difficulty.seconds", at::full({1}, effort.seconds, at::kDouble)});
}

void SubsetSelection::restore(TrainingState& state) {
  std::vector<NamedTensor> of_history, of_difficulty;
  for (const NamedTensor& tensor : state.memory) {
    (tensor.name.starts_with("difficulty.") ? of_difficulty : of_history).push_back(tensor);
  }
  ProxyEffort earlier;
  job_.communicator->all_or_none([&] {
    if (history_ && !of_history.empty()) history_->load_state(of_history, job_.communicator->rank());
    if (of_difficulty.empty()) return;
    const auto count = static_cast<std::int64_t>(experiment_.candidates.size());
    const at::Tensor networks = at::zeros({1}, at::kLong), sums = at::zeros({count}, at::kDouble);
    const at::Tensor examples = at::zeros({1}, at::kLong), seconds = at::zeros({1}, at::kDouble);
    const std::vector<NamedTensor> mine{{"difficulty.networks", networks},
                                        {"difficulty.sums", sums},
                                        {"difficulty.examples", examples},
                                        {"difficulty.seconds", seconds}};
    load_tensors(mine, of_difficulty, "the scores of earlier networks");
    difficulty_.networks = networks.item<std::int64_t>();
    difficulty_.sums.assign(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + count);
    earlier = {examples.item<std::int64_t>(), seconds.item<double>()};
  });
  const std::int64_t last = experiment_.config.selection.early.models - 1;
  proxy_.restore(state, std::min(difficulty_.networks, last), earlier);
  begun_ = std::move(state.selection);
  seconds_ = state.selection_seconds;
}

}  // namespace sage
