// Progressive data dropout on P ranks does what it does on one: the same examples, the same weights.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/softmax.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <set>

#include "core/error.h"
#include "models/weights.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "training/dropout/dropout.h"
#include "training/evaluation.h"

namespace sage {
namespace {

/// Probabilities of an example before the step of its batch: of its class, and the highest of another.
struct Score {
  double p_true = 0.0, p_other = 0.0;
};

struct Outcome {
  std::vector<NamedTensor> weights;
  std::vector<std::vector<std::int64_t>> kept;  // ids of each batch, over all ranks
  std::vector<std::int64_t> trained;            // what each step() said
  std::vector<DropoutRecord> epochs;
  std::vector<std::map<std::int64_t, Score>> scores;  // of each batch, by id; where the course asks for them
  std::int64_t poisoned_id = -1, skipped_steps = 0;
};

struct Course {
  std::string model = "cnn";
  std::int64_t batches = 10;
  at::ScalarType type = at::kFloat;
  double rate = 0.05;
  std::int64_t epochs = 3;     // of the run, for the revision
  std::int64_t poisoned = -1;  // batch whose first image on rank 0 is NaN
  bool scores = false;         // looks at each batch as dropout does with the default options
  double nudge = 0.0;          // relative change of the weights at the start
};

/// Of all ranks. In evaluation mode, which moves nothing.
std::map<std::int64_t, Score> scores_of(Learner& learner, const Batch& batch, Communicator& communicator) {
  const at::Tensor p = at::softmax(learner.score(batch, {}).logits, 1).to(at::kDouble);
  const at::Tensor labels = batch.labels.unsqueeze(1);
  const at::Tensor others = std::get<0>(p.scatter(1, labels, -1.0).max(1, /*keepdim=*/true));
  const at::Tensor ids = to_device(batch.ids, at::kCPU).to(at::kDouble).unsqueeze(1);
  const at::Tensor all = communicator.all_gather_rows(at::cat({ids, p.gather(1, labels), others}, 1)).contiguous();
  std::map<std::int64_t, Score> scores;
  const auto* row = all.const_data_ptr<double>();
  for (std::int64_t i = 0; i < all.size(0); ++i, row += 3) scores[static_cast<std::int64_t>(row[0])] = {row[1], row[2]};
  return scores;
}

Outcome train(const Experiment& experiment, Communicator& communicator, const Course& course) {
  PhaseTimer timer;
  const auto network = make_network(experiment, course.model, 5, communicator);
  network->to(at::kCPU, course.type, at::MemoryFormat::ChannelsLast);
  for (const at::Tensor& parameter : network->parameters()) {
    const at::NoGradGuard no_gradients;
    // Signs that follow no order of the weights.
    const at::Tensor signs = at::arange(parameter.numel(), parameter.options()).mul_(2.399963).sin_().sign_();
    if (course.nudge > 0.0) parameter.detach().mul_(1.0 + course.nudge * signs.view(parameter.sizes()));
  }
  Learner learner(experiment, network, communicator, timer);
  ProgressiveDropout dropout(experiment, communicator, timer, course.epochs);
  Outcome outcome;
  std::int64_t done = 0;
  for (std::int64_t epoch = 0; done < course.batches; ++epoch) {
    const auto ids = dropout.begin_epoch(experiment.candidates, epoch);
    Loader loader(*experiment.train_images, experiment.labels,
                  EpochPlan(ids, experiment.global_batch, communicator.rank(), communicator.size(), 5, epoch),
                  {2, true}, 1);
    const std::int64_t steps = std::min(loader.steps(), course.batches - done);
    for (std::int64_t step = 0; step < steps; ++step, ++done) {
      auto batch = loader.next();
      batch->images = batch->images.to(course.type);
      if (done == course.poisoned) {
        if (communicator.rank() == 0) batch->images[0].fill_(std::nan(""));
        const std::string first = std::to_string(batch->ids.empty() ? -1 : batch->ids[0]);
        outcome.poisoned_id = std::stoll(communicator.all_gather_strings(first).front());
      }
      if (course.scores) outcome.scores.push_back(scores_of(learner, *batch, communicator));
      outcome.trained.push_back(dropout.step(learner, loader, std::move(*batch),
                                             {.epoch = epoch, .batch = step, .is_last = step + 1 == steps}, course.rate,
                                             "test"));
      outcome.kept.push_back(dropout.kept_ids());
    }
    outcome.epochs.push_back(dropout.end_epoch(epoch));
  }
  learner.settle();
  outcome.skipped_steps = learner.skipped_steps();
  outcome.weights = copy_state(*network);
  return outcome;
}

/// The largest of the tensors' ||a - b|| / ||b||, the latter taken as at least `floor`.
double relative_difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b, double floor = 1e-12) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto x = a[i].tensor.to(at::kDouble), y = b[i].tensor.to(at::kDouble);
    worst = std::max(worst, (x - y).norm().item<double>() / std::max(floor, y.norm().item<double>()));
  }
  return worst;
}

std::unique_ptr<Experiment> experiment_of(const std::vector<std::string>& overrides, std::int64_t count = 101) {
  std::vector<std::string> all{"training.batch_size=30", "dropout.threshold=0.4", "seed=3", "training.momentum=0.5"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return testing::synthetic_experiment(count, 4, parse_config("", "test", all));
}

/// 101 examples in batches of 30: the last batch of an epoch holds 11, and every rank's share differs.
TEST(Dropout, RanksTrainAsOneRankDoesInEveryMode) {
  const auto single = make_single_communicator(at::kCPU);
  std::set<std::int64_t> counts;
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {"dropout.mode=dbpd"},
           {"dropout.mode=dbpd", "dropout.balance=redistribute", "dropout.score_in=train"},
           {"dropout.mode=dbpd", "dropout.accumulate_kept=true", "training.loss=focal"},
           {"dropout.mode=smrd", "dropout.threshold=0"},
           {"dropout.mode=srd", "dropout.gamma=0.6"},
           {"dropout.mode=psmrd", "dropout.score_in=train", "training.loss=ldam"},
           {"dropout.mode=apd", "dropout.balance=redistribute", "training.accumulate=3"},
           {"dropout.mode=apd", "dropout.accumulate_kept=true", "training.loss=class_balanced_focal"},
           {"dropout.mode=infobatch", "dropout.anneal=0"}}) {
    const auto experiment = experiment_of(overrides);
    const std::string name = fmt::format("{} at {} ranks", fmt::join(overrides, " "), world().size());
    // Where a step is made in several passes, batch statistics are those of each pass, and passes are cut by rank.
    const bool split = experiment->config.training.accumulate > 1;
    const Course course{.model = split ? "mlp" : "resnet20", .type = at::kDouble};
    const Outcome alone = train(*experiment, *single, course), together = train(*experiment, world(), course);
    EXPECT_EQ(together.kept, alone.kept) << name;
    EXPECT_EQ(together.trained, alone.trained) << name;
    EXPECT_LT(relative_difference(together.weights, alone.weights), 1e-8) << name;
    for (std::size_t epoch = 0; epoch < alone.epochs.size(); ++epoch) {
      EXPECT_EQ(together.epochs[epoch].kept_of_class, alone.epochs[epoch].kept_of_class) << name;
      EXPECT_EQ(together.epochs[epoch].updates, alone.epochs[epoch].updates) << name;
      EXPECT_EQ(together.epochs[epoch].difficulty.size(), alone.epochs[epoch].difficulty.size());
      EXPECT_EQ(together.epochs[epoch].difficulty, alone.epochs[epoch].difficulty) << name;
    }
    counts.insert(alone.trained.begin(), alone.trained.end());
  }
  EXPECT_GT(counts.size(), 10U) << "parts of all sizes were trained on";
}

bool is_near(double a, double b) { return std::abs(a - b) <= 1e-4 * std::abs(b); }

/// Looks at the first batch in which the two runs keep different examples: near-ties must be at the bottom of it.
void expect_near_ties(const Experiment& experiment, const Outcome& alone, const Outcome& together) {
  const DropoutConfig& config = experiment.config.dropout;
  const HardRule rule = to_hard_rule(config);
  std::size_t batch = 0;
  while (alone.kept.at(batch) == together.kept.at(batch)) ++batch;
  const auto hardness = [&](const Score& score) {
    return is_hard(score.p_true, score.p_true > score.p_other, config.threshold, rule);
  };
  // What is hard in one run only lies at the threshold or, where that counts, at the edge of being misclassified.
  std::set<std::int64_t> flipped;
  for (const auto& [id, score] : alone.scores.at(batch)) {
    if (hardness(score) == hardness(together.scores.at(batch).at(id))) continue;
    flipped.insert(id);
    EXPECT_TRUE(is_near(score.p_true, config.threshold) ||
                (rule == HardRule::either && is_near(score.p_true, score.p_other)))
        << config.mode << ", batch " << batch << ": example " << id << " is hard on one side only, with p_true "
        << score.p_true << " and " << score.p_other << " of another class";
  }
  const auto set_of = [&](const Outcome& run) {
    return std::set<std::int64_t>(run.kept[batch].begin(), run.kept[batch].end());
  };
  const std::set<std::int64_t> a = set_of(alone), b = set_of(together);
  std::set<std::int64_t> differing;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::inserter(differing, differing.end()));
  if (config.mode == "dbpd") {
    EXPECT_EQ(differing, flipped) << "kept is what is hard";
  } else if (config.mode == "smrd") {
    EXPECT_LE(differing.size(), flipped.size()) << "the budget, and nothing else, differs by what has flipped";
  } else if (config.mode == "apd") {
    EXPECT_FALSE(flipped.empty()) << "the draws are the same, so the budget must differ";
  } else if (flipped.empty()) {
    // psmrd with the same quotas: who is left out by one run only lies beside the last of its class that this run kept.
    for (const std::int64_t id : differing) {
      const bool kept_alone = a.contains(id);
      const auto& scores = kept_alone ? together.scores[batch] : alone.scores[batch];
      const Score& score = scores.at(id);
      double deciding = -std::numeric_limits<double>::infinity();
      for (const std::int64_t other : kept_alone ? b : a) {
        const bool same_class =
            experiment.labels[static_cast<std::size_t>(other)] == experiment.labels[static_cast<std::size_t>(id)];
        if (same_class && hardness(scores.at(other)) == hardness(score)) {
          deciding = std::max(deciding, scores.at(other).p_true);
        }
      }
      EXPECT_TRUE(is_near(score.p_true, deciding)) << "batch " << batch << ": example " << id << " with p_true "
                                                   << score.p_true << ", where " << deciding << " was still kept";
    }
  }
}

/// In float32 an example at the threshold may fall to either side. Then the two runs go apart: the batch in which they
/// do must hold such an example, and of eight runs at most one may.
TEST(Dropout, SinglePrecisionKeepsTheSameExamplesButForNearTies) {
  const auto single = make_single_communicator(at::kCPU);
  std::size_t near_ties = 0, kept = 0;
  for (const char* mode : {"dbpd", "smrd", "psmrd", "apd"}) {
    for (const char* model : {"cnn", "mlp"}) {
      const auto experiment = experiment_of({fmt::format("dropout.mode={}", mode)});
      const Course course{.model = model, .batches = 10, .scores = true};
      const Outcome alone = train(*experiment, *single, course), together = train(*experiment, world(), course);
      for (const auto& ids : alone.kept) kept += ids.size();
      if (together.kept == alone.kept) {
        EXPECT_LT(relative_difference(together.weights, alone.weights), 1e-4) << mode << " " << model;
      } else {
        ++near_ties;
        expect_near_ties(*experiment, alone, together);
      }
    }
  }
  EXPECT_LE(near_ties, 1U);
  EXPECT_GT(kept, 200U);
}

/// With a network that drops features too: that noise goes with an example, on whichever rank it is scored and trained
/// on. Few steps, and held to what one process makes of weights that differ in the last bits:
/// images of 8 x 8 pixels end in one pixel, whose batch statistics blow rounding up
/// (Training.NoiseIsTheSameAtAnyNumberOfRanks).
TEST(Dropout, RanksTrainAsOneRankDoesWithNoise) {
  struct Case {
    std::vector<std::string> overrides;
    std::int64_t batches;
    bool is_part;  // some of the first batch is left out
  };
  const std::vector<std::string> moved{"dropout.mode=dbpd", "dropout.balance=redistribute", "dropout.score_in=train",
                                       "dropout.threshold=0.28"};
  const auto single = make_single_communicator(at::kCPU);
  for (const Case& one :
       {Case{moved, 1, true}, Case{moved, 2, true},
        Case{{"dropout.mode=apd", "dropout.accumulate_kept=true", "dropout.threshold=0"}, 1, true},
        // All of two batches through the pool: a rest of one example would have no statistics.
        Case{{"dropout.mode=apd", "dropout.accumulate_kept=true", "dropout.threshold=0.9999"}, 2, false}}) {
    const auto experiment = experiment_of(one.overrides);
    const std::string name =
        fmt::format("{}: {} batches at {} ranks", fmt::join(one.overrides, " "), one.batches, world().size());
    Course course{.model = "mobilenet_v2", .batches = one.batches, .type = at::kDouble};
    const Outcome alone = train(*experiment, *single, course), together = train(*experiment, world(), course);
    EXPECT_EQ(together.kept, alone.kept) << name;
    EXPECT_EQ(together.trained, alone.trained) << name;
    EXPECT_GT(alone.trained.at(0), 0) << name;
    EXPECT_EQ(alone.kept.at(0).size() < 30U, one.is_part) << name << " keep " << alone.kept.at(0).size();
    course.nudge = 1e-15;
    // Biases whose gradient vanishes (batch statistics follow) hold nothing but rounding.
    const double grown = relative_difference(train(*experiment, *single, course).weights, alone.weights, 1e-3);
    EXPECT_LT(relative_difference(together.weights, alone.weights, 1e-3), std::max(1e-9, 10.0 * grown)) << name;
  }
}

TEST(Dropout, BothBalancesAndEveryRepeatGiveTheSameWeights) {
  const auto weight = experiment_of({"dropout.mode=smrd"});
  const auto redistribute = experiment_of({"dropout.mode=smrd", "dropout.balance=redistribute"});
  const Course course{.model = "resnet20", .batches = 6, .type = at::kDouble};
  const Outcome one = train(*weight, world(), course), other = train(*redistribute, world(), course);
  EXPECT_EQ(one.kept, other.kept);
  EXPECT_LT(relative_difference(other.weights, one.weights), 1e-8);
  EXPECT_EQ(relative_difference(train(*redistribute, world(), course).weights, other.weights), 0.0);
}

TEST(Dropout, StratifiedWithoutQuotasIsDbpd) {
  const auto stratified = experiment_of({"dropout.mode=psmrd", "dropout.quota=none", "dropout.hard_rule=true_class"});
  const auto plain = experiment_of({"dropout.mode=dbpd"});
  const Outcome a = train(*stratified, world(), {}), b = train(*plain, world(), {});
  EXPECT_EQ(a.kept, b.kept);
  EXPECT_EQ(relative_difference(a.weights, b.weights), 0.0);
}

/// Where everything is hard, or the revision has come, dropout is ordinary training; bit for bit, whether the
/// activations of the scoring pass are used or not.
TEST(Dropout, KeepingEverythingIsOrdinaryTraining) {
  const auto ordinary = [](const Experiment& experiment) {
    PhaseTimer timer;
    const auto network = make_network(experiment, "resnet20", 5, world());
    Learner learner(experiment, network, world(), timer);
    for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
      Loader loader(*experiment.train_images, experiment.labels,
                    EpochPlan(experiment.candidates, experiment.global_batch, world().rank(), world().size(), 5, epoch),
                    {2, true}, 1);
      for (Batch& batch : loader) learner.step(batch, 1e-3, "test");
    }
    learner.settle();
    return copy_state(*network);
  };
  const auto plain = ordinary(*experiment_of({}, 80));
  const Course course{.model = "resnet20", .batches = 6, .rate = 1e-3};
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {"dropout.mode=dbpd", "dropout.threshold=0.9999"},                            // all are hard
           {"dropout.mode=dbpd", "dropout.threshold=0.9999", "dropout.score_in=train"},  // with one forward pass
           {"dropout.mode=apd", "dropout.start_revision=0"},
           {"dropout.mode=srd", "dropout.gamma=1"},
           {"dropout.mode=infobatch", "dropout.anneal=1"}}) {
    const auto experiment = experiment_of(overrides, 80);
    const Outcome outcome = train(*experiment, world(), course);
    EXPECT_EQ(outcome.trained, (std::vector<std::int64_t>{30, 30, 20, 30, 30, 20}));
    EXPECT_EQ(relative_difference(outcome.weights, plain), 0.0) << fmt::format("{}", fmt::join(overrides, " "));
  }
}

TEST(Dropout, ABatchOfWhichNothingIsKeptIsSkippedByAllRanks) {
  const auto experiment = experiment_of({"dropout.mode=srd", "dropout.gamma=0.02"});  // epoch 1: floor(0.6) = 0
  const Outcome outcome = train(*experiment, world(), {.model = "resnet20", .batches = 8});
  EXPECT_EQ(outcome.trained, (std::vector<std::int64_t>{30, 30, 30, 11, 0, 0, 0, 0}));
  EXPECT_EQ(outcome.epochs[1].empty_batches, 4);
  EXPECT_EQ(outcome.epochs[1].updates, 0);
  EXPECT_EQ(outcome.epochs[1].kept, 0);
  EXPECT_EQ(
      relative_difference(outcome.weights, train(*experiment, world(), {.model = "resnet20", .batches = 4}).weights),
      0.0);
}

/// One example of a whole batch is kept: all ranks but one have nothing, and take part.
TEST(Dropout, RanksThatKeepNothingTakePart) {
  const auto single = make_single_communicator(at::kCPU);
  for (const char* model : {"cnn", "mlp", "resnet20"}) {
    const auto experiment = experiment_of({"dropout.mode=srd", "dropout.gamma=0.1"});
    Course course{.model = model, .batches = 8, .type = at::kDouble};  // the second epoch keeps 3, 3, 3, 1 of a batch
    const Outcome alone = train(*experiment, *single, course), together = train(*experiment, world(), course);
    EXPECT_EQ(together.trained, (std::vector<std::int64_t>{30, 30, 30, 11, 3, 3, 3, 1}));
    EXPECT_LT(relative_difference(together.weights, alone.weights), 1e-8) << model;
  }
  // Without statistics over all ranks too, where an empty batch has none.
  const auto own = experiment_of({"dropout.mode=srd", "dropout.gamma=0.1", "training.sync_batch_norm=false"});
  for (const NamedTensor& entry : train(*own, world(), {.model = "resnet20", .batches = 8}).weights) {
    EXPECT_TRUE(entry.tensor.isfinite().all().item<bool>()) << entry.name;
  }
}

TEST(Dropout, KeptExamplesAreGatheredIntoFullBatches) {
  const auto experiment = experiment_of({"dropout.mode=srd", "dropout.gamma=0.5", "dropout.accumulate_kept=true"});
  const Outcome outcome = train(*experiment, world(), {.batches = 8});
  // 15 of 30 three times and 5 of 11 in the second epoch: a full batch after the second, the rest at the end.
  EXPECT_EQ(outcome.trained, (std::vector<std::int64_t>{30, 30, 30, 11, 0, 30, 0, 20}));
  EXPECT_EQ(outcome.epochs[1].updates, 2);
  EXPECT_EQ(outcome.epochs[1].kept, 50);
  EXPECT_EQ(outcome.epochs[1].empty_batches, 0);
}

/// What is not finite counts as hard: it must be kept, for its step to be skipped.
TEST(Dropout, ANaNIsSeenSkippedAndLeavesNoTrace) {
  for (const std::vector<std::string>& overrides : std::vector<std::vector<std::string>>{
           {"dropout.mode=dbpd"},
           {"dropout.mode=dbpd", "dropout.score_in=train"},
           {"dropout.mode=dbpd", "dropout.score_in=train", "dropout.accumulate_kept=true"},
           {"dropout.mode=infobatch"}}) {
    const auto experiment = experiment_of(overrides);
    const std::string name = fmt::format("{}", fmt::join(overrides, " "));
    const Outcome outcome = train(*experiment, world(), {.model = "resnet20", .batches = 7, .poisoned = 1});
    ASSERT_GE(outcome.poisoned_id, 0);  // the same on all ranks
    EXPECT_EQ(std::count(outcome.kept.at(1).begin(), outcome.kept.at(1).end(), outcome.poisoned_id), 1) << name;
    // What is gathered for later is read again, without the NaN.
    EXPECT_EQ(outcome.skipped_steps, experiment->config.dropout.accumulate_kept ? 0 : 1) << name;
    for (const NamedTensor& entry : outcome.weights) {
      EXPECT_TRUE(entry.tensor.isfinite().all().item<bool>()) << entry.name << " " << name;
    }
  }
}

/// InfoBatch: rescaled steps on what is left. The first epoch knows no losses and keeps all.
TEST(Dropout, InfoBatchPrunesFromTheSecondEpochAndEndsOnEverything) {
  const auto experiment = experiment_of({"dropout.mode=infobatch", "dropout.anneal=0.3", "dropout.prune=0.6"});
  const Outcome outcome = train(*experiment, world(), {.batches = 11, .epochs = 3});
  ASSERT_EQ(outcome.epochs.size(), 3U);
  EXPECT_EQ(outcome.epochs[0].kept, 101);
  EXPECT_LT(outcome.epochs[1].kept, 101);
  EXPECT_GT(outcome.epochs[1].kept, 30);
  EXPECT_EQ(outcome.epochs[1].offered, 101);
  EXPECT_TRUE(outcome.epochs[2].everything);
}

TEST(Evaluation, CountsEveryExampleOnceOnAnyNumberOfRanks) {
  const auto experiment = experiment_of({});
  const auto single = make_single_communicator(at::kCPU);
  const auto network = make_network(*experiment, "cnn", 5, *single);
  const auto evaluate_on = [&](Communicator& communicator) {
    return evaluate(*network, *experiment->train_images, experiment->labels, experiment->candidates, 16, communicator,
                    "float32");
  };
  const EvaluationReport alone = evaluate_on(*single), together = evaluate_on(world());
  EXPECT_TRUE(at::equal(together.confusion, alone.confusion));
  EXPECT_EQ(together.confusion.sum().item<std::int64_t>(), 101);
  EXPECT_EQ(together.examples, 101);
  EXPECT_EQ(together.mean.f1_macro, alone.mean.f1_macro);
  EXPECT_EQ(together.mean.class_accuracy, alone.mean.class_accuracy);
  EXPECT_GT(together.mean.f1_macro, 0.0);
}

/// Weighted subsets keep their weights whatever is kept and wherever it is trained on.
TEST(Dropout, WeightsOfExamplesGoAlong) {
  const auto run = [](const std::vector<std::string>& overrides, Communicator& communicator) {
    const auto experiment = experiment_of(overrides);
    PhaseTimer timer;
    const auto network = make_network(*experiment, "cnn", 5, communicator);
    network->to(at::kCPU, at::kDouble, at::MemoryFormat::ChannelsLast);
    Learner learner(*experiment, network, communicator, timer);
    ProgressiveDropout dropout(*experiment, communicator, timer, 5);
    Loader loader(*experiment->train_images, experiment->labels,
                  EpochPlan(experiment->candidates, 30, communicator.rank(), communicator.size(), 5, 0), {2, true}, 1);
    for (std::int64_t step = 0; step < 4; ++step) {
      auto batch = loader.next();
      batch->images = batch->images.to(at::kDouble);
      batch->weights = to_device(batch->ids, at::kCPU).to(at::kFloat) / 50.0;
      dropout.step(learner, loader, std::move(*batch), {.epoch = 1, .batch = step, .is_last = step == 3}, 0.05, "test");
    }
    learner.settle();
    return copy_state(*network);
  };
  const auto single = make_single_communicator(at::kCPU);
  for (const std::string& extra : {std::string("dropout.balance=weight"), std::string("dropout.balance=redistribute"),
                                   std::string("dropout.accumulate_kept=true")}) {
    const std::vector<std::string> overrides{"dropout.mode=srd", "dropout.gamma=0.5", extra};
    EXPECT_LT(relative_difference(run(overrides, world()), run(overrides, *single)), 1e-8) << extra;
  }
}

}  // namespace
}  // namespace sage
