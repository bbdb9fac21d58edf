#include "training/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using nlohmann::json;
using testing::bytes_of;
using testing::contains;
using testing::message_of;
using testing::put_bytes;

class MetricsTest : public testing::TemporaryFolder {
 protected:
  json written() const { return json::parse(bytes_of(folder_ / "metrics.json")); }
};

EpochRecord record(std::int64_t epoch, double accuracy) {
  EpochRecord result;
  result.epoch = epoch;
  result.steps = epoch * 100;
  result.examples_seen = epoch * 12800;
  result.effective_epochs = 1.5 * static_cast<double>(epoch);
  result.learning_rate = 0.1 / static_cast<double>(epoch);
  result.seconds = 1.5;
  result.train = {2.0 / static_cast<double>(epoch), 0.5};
  result.test = Evaluation{1.0, accuracy};
  for (int rank = 0; rank < 2; ++rank) {
    RankUse use;
    use.rank = rank;
    use.phases["forward"] = {0.5 + rank, 100, 0, 0};
    use.host_peak_bytes = 1000 + rank;
    use.device_peak_bytes = 500 - rank;
    use.cpu_seconds = 2.25 + rank;
    result.ranks.push_back(use);
  }
  return result;
}

SelectionSummary selection(std::int64_t epoch, std::int64_t round) {
  SelectionSummary result;
  result.epoch = epoch;
  result.round = round;
  result.method = "sage";
  result.candidates = 1000;
  result.kept = 50;
  result.seconds = 0.25;
  result.phase_seconds = {{"selection.sketch", 0.2}};
  result.relative_certificate = 0.01;
  if (round > 1) result.overlap = 0.75;
  return result;
}

TEST_F(MetricsTest, BothFilesHoldEveryEpochAtOnce) {
  Metrics metrics(folder_);
  metrics.set_version("sage", "0.1.0");
  metrics.set_summary("wrong_labels_kept", 3.0);
  metrics.set_summary("protocol", "fixed steps");
  metrics.add(record(1, 0.6));
  metrics.add(selection(1, 1));
  metrics.add(record(2, 0.8));
  metrics.add(record(3, 0.8));

  const json all = written();
  EXPECT_EQ(all["summary"]["epochs"], 3);
  EXPECT_EQ(all["summary"]["steps"], 300);
  EXPECT_EQ(all["summary"]["examples_seen"], 38400);
  EXPECT_EQ(all["summary"]["total_seconds"], 4.5);
  EXPECT_EQ(all["summary"]["selection_seconds"], 0.25);
  EXPECT_EQ(all["summary"]["cpu_seconds"], 3 * (2.25 + 3.25));
  EXPECT_EQ(all["summary"]["best_epoch"], 2) << "the first of equals";
  EXPECT_EQ(all["summary"]["best_accuracy"], 0.8);
  EXPECT_EQ(all["summary"]["best_accuracy_of"], "test");
  EXPECT_EQ(all["summary"]["host_peak_bytes"], 1001);
  EXPECT_EQ(all["summary"]["device_peak_bytes"], 500);
  EXPECT_EQ(all["summary"]["wrong_labels_kept"], 3.0);
  EXPECT_EQ(all["summary"]["protocol"], "fixed steps");
  EXPECT_EQ(all["versions"]["sage"], "0.1.0");
  ASSERT_EQ(all["epochs"].size(), 3U);
  EXPECT_EQ(all["epochs"][1]["train"]["loss"], 1.0);
  EXPECT_TRUE(all["epochs"][1]["validation"].is_null());
  EXPECT_EQ(all["epochs"][1]["ranks"][1]["phases"]["forward"]["seconds"], 1.5);
  ASSERT_EQ(all["selections"].size(), 1U);
  EXPECT_EQ(all["selections"][0]["phase_seconds"]["selection.sketch"], 0.2);
  EXPECT_TRUE(all["selections"][0]["overlap"].is_null());

  EXPECT_EQ(bytes_of(folder_ / "metrics.csv"),
            "epoch,steps,examples_seen,learning_rate,seconds,train_loss,train_accuracy,validation_loss,"
            "validation_accuracy,test_loss,test_accuracy,validation_f1_macro,test_f1_macro,effective_epochs,"
            "kept_fraction,host_peak_bytes,device_peak_bytes,seconds.forward\n"
            "1,100,12800,0.1,1.500000,2,0.5,,,1,0.6,,,1.5,,1001,500,1.500000\n"
            "2,200,25600,0.05,1.500000,1,0.5,,,1,0.8,,,3,,1001,500,1.500000\n"
            "3,300,38400,0.03333333333333333,1.500000,0.6666666666666666,0.5,,,1,0.8,,,4.5,,1001,500,1.500000\n");
}

TEST_F(MetricsTest, ValidationCountsBeforeTest) {
  Metrics metrics(folder_);
  for (std::int64_t epoch = 1; epoch <= 3; ++epoch) {
    EpochRecord one = record(epoch, 0.1 * static_cast<double>(epoch));
    one.validation = Evaluation{0.5, epoch == 1 ? 0.9 : 0.2};
    metrics.add(one);
  }
  ASSERT_NE(metrics.best(), nullptr);
  EXPECT_EQ(metrics.best()->epoch, 1);
  EXPECT_EQ(written()["summary"]["best_accuracy_of"], "validation");
}

TEST_F(MetricsTest, ResumingDropsWhatIsDoneAgain) {
  {
    Metrics metrics(folder_);
    metrics.set_version("sage", "0.1.0");
    metrics.add(selection(0, 1));
    metrics.add(record(1, 0.5));
    EpochRecord blown = record(2, 0.6);
    blown.train.loss = std::numeric_limits<double>::quiet_NaN();
    metrics.add(blown);
    metrics.add(selection(2, 2));
    metrics.add(record(3, 0.7));
  }
  Metrics metrics = Metrics::resume(folder_, 2, 1);
  ASSERT_EQ(metrics.epochs().size(), 2U);
  ASSERT_EQ(metrics.selections().size(), 1U);
  EXPECT_TRUE(std::isnan(metrics.epochs()[1].train.loss));
  EXPECT_EQ(metrics.epochs()[1].ranks[1].phases.at("forward").seconds, 1.5);
  EXPECT_EQ(metrics.total_seconds(), 3.0);
  const json before = written();
  metrics.add(selection(2, 2));
  metrics.add(record(3, 0.7));
  EXPECT_EQ(written(), before) << "the same work leaves the same figures";
  EXPECT_TRUE(Metrics::resume(folder_ / "elsewhere", 2, 1).epochs().empty());
}

DropoutRecord dropout(std::int64_t kept, double seconds) {
  DropoutRecord result;
  result.everything = kept == 100;
  result.offered = 100;
  result.kept = kept;
  result.updates = 4;
  result.empty_batches = 1;
  result.training_seconds = seconds;
  result.difficulty = {0.5, 0.25};
  result.proportion = {0.75, 0.25};
  if (result.everything) return result;
  result.offered_of_class = {100, 0};
  result.hard_of_class = {20, 0};
  result.kept_of_class = {kept, 0};
  return result;
}

TEST_F(MetricsTest, DropoutIsToldByEpochAndClassWithItsGainInTime) {
  const auto add_all = [](Metrics& metrics, std::int64_t from) {
    for (std::int64_t epoch = from; epoch <= 4; ++epoch) {
      EpochRecord one = record(epoch, 0.5);
      one.dropout = epoch < 4 ? dropout(10 * epoch, 1.0) : dropout(100, 3.0);
      one.ranks[1].phases["scoring"] = {0.25, 4, 0, 0};
      one.test->f1_macro = 0.4;
      one.test->class_accuracy = {0.75, std::numeric_limits<double>::quiet_NaN()};
      metrics.add(one);
    }
  };
  Metrics metrics(folder_);
  metrics.set_class_names({"cat", "dog"});
  add_all(metrics, 1);
  const json all = written(), part = all["epochs"][1]["dropout"];
  EXPECT_EQ(part["kept_fraction"], 0.2);
  EXPECT_EQ(part["kept_fraction_of_class"], (json{0.2, nullptr}));
  EXPECT_EQ(part["hard_of_class"], (json{20, 0}));
  EXPECT_EQ(part["scoring_seconds"], 0.25) << "of the slowest rank";
  EXPECT_EQ(part["difficulty"], (json{0.5, 0.25}));
  EXPECT_EQ(all["epochs"][3]["dropout"]["everything"], true);
  EXPECT_EQ(all["epochs"][3]["dropout"]["kept_of_class"], json::array());
  EXPECT_EQ(all["class_names"], (json{"cat", "dog"}));
  EXPECT_EQ(all["epochs"][0]["test"]["f1_macro"], 0.4);
  EXPECT_EQ(all["epochs"][0]["test"]["class_accuracy"], (json{0.75, nullptr}));
  EXPECT_EQ(all["summary"]["effective_epochs"], 6.0);
  // Four epochs like the last would have taken 12 seconds, and took 6.
  EXPECT_EQ(all["summary"]["wall_clock_gain"], 2.0);
  // What is read again is what was written.
  Metrics resumed = Metrics::resume(folder_, 2, 0);
  resumed.set_class_names({"cat", "dog"});
  EXPECT_TRUE(resumed.epochs()[1].dropout->offered_of_class == (std::vector<std::int64_t>{100, 0}));
  add_all(resumed, 3);
  EXPECT_EQ(written(), all);
}

TEST_F(MetricsTest, AnEpochOfSeveralProcessesIsLeftOutOfTheGain) {
  Metrics metrics(folder_);
  for (std::int64_t epoch = 1; epoch <= 4; ++epoch) {
    EpochRecord one = record(epoch, 0.5);
    one.dropout = epoch < 4 ? dropout(20, 1.0) : dropout(100, 3.0);
    if (epoch == 2) {
      one.dropout->training_seconds = 0.125;
      one.dropout->earlier_seconds = 7.0;
    }
    metrics.add(one);
  }
  // The other three on everything: 9 seconds, which took 5.
  EXPECT_NEAR(written()["summary"]["wall_clock_gain"].get<double>(), 1.8, 1e-12);
  EXPECT_EQ(written()["epochs"][1]["dropout"]["earlier_seconds"], 7.0);
  EXPECT_EQ(Metrics::resume(folder_, 4, 0).epochs()[1].dropout->earlier_seconds, 7.0);
  json older = written();
  older["epochs"][1]["dropout"].erase("earlier_seconds");
  put_bytes(folder_ / "metrics.json", older.dump());
  EXPECT_EQ(Metrics::resume(folder_, 4, 0).epochs()[1].dropout->earlier_seconds, 0.0);
}

TEST_F(MetricsTest, WithoutAnEpochOnEverythingThereIsNoGainToTell) {
  Metrics metrics(folder_);
  EpochRecord one = record(1, 0.5);
  one.dropout = dropout(20, 1.0);
  metrics.add(one);
  EXPECT_TRUE(written()["summary"]["wall_clock_gain"].is_null());
  EXPECT_TRUE(written()["summary"].contains("wall_clock_gain"));
}

TEST_F(MetricsTest, ADamagedFileIsNamed) {
  Metrics metrics(folder_);
  metrics.add(record(1, 0.5));
  const std::string whole = bytes_of(folder_ / "metrics.json");
  for (const std::string& damaged :
       {whole.substr(0, whole.size() / 2), std::string("[]"), std::string("{\"epochs\":[{}]}")}) {
    put_bytes(folder_ / "metrics.json", damaged);
    EXPECT_TRUE(contains(message_of<CheckpointError>([&] { Metrics::resume(folder_, 9, 9); }), "metrics.json"));
  }
}

TEST_F(MetricsTest, HostileFiguresAreRefusedByTheirCause) {
  Metrics metrics(folder_);
  metrics.add(record(1, 0.5));
  const json whole = written();
  const auto refusal = [&](const std::string& text) {
    put_bytes(folder_ / "metrics.json", text);
    return message_of<CheckpointError>([&] { Metrics::resume(folder_, 9, 9); });
  };
  const auto with = [&](const std::string& pointer, const json& value) {
    json changed = whole;
    changed[json::json_pointer(pointer)] = value;
    return refusal(changed.dump());
  };
  EXPECT_EQ(refusal(whole.dump()), "");
  EXPECT_TRUE(contains(with("/epochs/0/steps", 1e300), "'steps' is 1e+300, expected a whole number"));
  EXPECT_TRUE(contains(with("/epochs/0/epoch", -1), "'epoch' is -1"));
  EXPECT_TRUE(contains(with("/epochs/0/ranks/0/rank", std::int64_t{1} << 40), "'rank' is"));
  EXPECT_TRUE(contains(with("/epochs/0/ranks/0/phases/forward/calls", "many"), "'calls' is"));
  EXPECT_TRUE(contains(with("/epochs/0/ranks/0/phases", json::array({1})), "metrics.json"));
  EXPECT_TRUE(contains(with("/epochs/1", whole["epochs"][0]), "epoch 1 stands after epoch 1"));
  EXPECT_TRUE(contains(refusal("{\"epochs\":" + std::string(100000, '[')), "nested deeper"));
  EXPECT_TRUE(contains(refusal("{\"epochs\":[],\"epochs\":[]}"), "names 'epochs' twice"));
}

TEST_F(MetricsTest, EpochsMustAscend) {
  Metrics metrics(folder_);
  metrics.add(record(2, 0.5));
  EXPECT_THROW(metrics.add(record(2, 0.5)), InternalError);
}

TEST_F(MetricsTest, AFullDiskLeavesTheOldFiles) {
  Metrics metrics(folder_);
  metrics.add(record(1, 0.5));
  const std::string before = bytes_of(folder_ / "metrics.json");
  {
    const testing::FullDisk full(100);
    EXPECT_THROW(metrics.add(record(2, 0.5)), EnvironmentError);
  }
  EXPECT_EQ(bytes_of(folder_ / "metrics.json"), before);
}

}  // namespace
}  // namespace sage
