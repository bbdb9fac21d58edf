#include "core/config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>

#include "core/config_source.h"
#include "core/error.h"

namespace sage {
namespace {

Config parse(const std::string& yaml, std::vector<std::string> overrides = {}) {
  return parse_config(yaml, "test.yaml", overrides);
}

std::string error_of(const std::string& yaml, std::vector<std::string> overrides = {}) {
  try {
    parse(yaml, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Config, PrecedenceIsDefaultsThenYamlThenOverridesInOrder) {
  const std::string yaml = "training:\n  lr: 0.5\n  epochs: 3\n";
  const Config config = parse(yaml, {"training.lr=0.25", "training.lr=0.125"});
  EXPECT_EQ(config.training.lr, 0.125);
  EXPECT_EQ(config.training.epochs, 3);
  EXPECT_EQ(config.training.batch_size, TrainingConfig{}.batch_size);
}

TEST(Config, DottedKeysListsAutoAndTheShortFormOfDevice) {
  const Config config = parse(
      "device: cpu\nselection.sketch.size: auto\nselection:\n  filter: {drop: 0.25}\n"
      "  gradient: {scope: [layer3.*, fc.weight]}\ntraining: {scheduler: multistep, milestones: [3, 5]}\n");
  EXPECT_EQ(config.device.type, "cpu");
  EXPECT_EQ(config.selection.sketch.size, 0);
  EXPECT_EQ(config.selection.filter.drop, 0.25);
  EXPECT_EQ(config.selection.gradient.scope, (std::vector<std::string>{"layer3.*", "fc.weight"}));
  EXPECT_EQ(config.training.milestones, (std::vector<std::int64_t>{3, 5}));
}

TEST(Config, ResolvedYamlReadsBackToTheSame) {
  const Config config = parse("seed: 18446744073709551615\noutput_dir: \"a: b # c\"\n",
                              {"training.lr=0.1", "selection.filter.drop=auto", "training.weight_decay=1e-7"});
  const Config again = parse_config(to_yaml(config), "resolved", {});
  EXPECT_EQ(to_json(config), to_json(again));
  EXPECT_EQ(again.seed, 18446744073709551615ULL);
  EXPECT_EQ(again.output_dir, "a: b # c");
  EXPECT_EQ(again.selection.filter.drop, -1.0);
}

TEST(Config, ErrorsNameFileLineKeyAndTheWayOut) {
  EXPECT_EQ(error_of("seed: 1\ntraning:\n  lr: 0.1\n"),
            "test.yaml:2: unknown key `traning` (did you mean `training`?); `sage config list` shows all keys");
  EXPECT_NE(error_of("training:\n  leraning_rate: 1\n").find("test.yaml:2: unknown key `training.leraning_rate`"),
            std::string::npos);
  EXPECT_NE(error_of("lr: 1\n").find("did you mean `training.lr`?"), std::string::npos);
  EXPECT_EQ(error_of("training:\n  epochs: ten\n"),
            "test.yaml:2: training.epochs is `ten`, expected an integer in [1, 1000000]");
  EXPECT_EQ(error_of("selection: {fraction: 0}\n"),
            "test.yaml:1: selection.fraction is `0`, expected a number in (0, 1]");
  EXPECT_NE(error_of("selection: {keep: tpo}\n").find("did you mean top?"), std::string::npos);
  EXPECT_NE(error_of("training: 3\n").find("is a group of keys"), std::string::npos);
  EXPECT_NE(error_of("training: {epochs: [1]}\n").find("is a list, expected integer in [1, 1000000]"),
            std::string::npos);
  EXPECT_NE(error_of("seed: 1\nseed: 2\n").find("seed is given twice"), std::string::npos);
  EXPECT_NE(error_of("a: [1\n").find("not valid YAML"), std::string::npos);
  EXPECT_NE(error_of("- 1\n").find("expected `key: value` lines"), std::string::npos);
  EXPECT_NE(error_of("", {"training.lr"}).find("expected key=value"), std::string::npos);
  EXPECT_NE(error_of("", {"training.lr=nan"}).find("expected a number > 0"), std::string::npos);
  EXPECT_NE(error_of("", {"training.batch_size=99999999999999999999"}).find("expected an integer"), std::string::npos);
}

TEST(Config, LayersLieOverEachOther) {
  ConfigSource source;
  source.defaults = {{"training.epochs", "1", ""}, {"training.lr", "0.5", ""}, {"training.milestones", "[2, 4]", ""}};
  source.settings = {to_setting("seed=3"), {"output_dir", "a: b # c", "--output_dir a: b # c", true}};
  const Config config = source.load_over("training:\n  epochs: 7\nseed: 2\n", "test.yaml");
  EXPECT_EQ(config.training.epochs, 7);
  EXPECT_EQ(config.training.lr, 0.5);
  EXPECT_EQ(config.training.milestones, (std::vector<std::int64_t>{2, 4}));
  EXPECT_EQ(config.seed, 3U);
  EXPECT_EQ(config.output_dir, "a: b # c") << "plain: no YAML";
  EXPECT_TRUE(source.sets("seed") && !source.sets("training.lr"));
  EXPECT_EQ(source.given_keys(), (std::set<std::string>{"output_dir", "seed"})) << "defaults are not given";
  source.settings.push_back(to_setting("training={lr: 0.25, epochs: 2}"));
  EXPECT_EQ(source.given_keys(), (std::set<std::string>{"output_dir", "seed", "training.epochs", "training.lr"}));
  EXPECT_THROW(to_setting("seed"), ConfigError);
  EXPECT_THROW(to_setting("=3"), ConfigError);
}

TEST(Config, MessagesNameTheFlagThatSetAKey) {
  const std::vector<ConfigSetting> settings = {{"training.lr", "1", "--lr 1", true},
                                               {"model.name", "a", "--arch a", true},
                                               {"model.name", "b", "--model b", true},
                                               to_setting("seed=3")};
  EXPECT_EQ(with_flags("training.lr is too high", settings),
            "training.lr is too high (training.lr was set by `--lr 1`)");
  EXPECT_EQ(with_flags("model.name: no such network", settings),
            "model.name: no such network (model.name was set by `--model b`)")
      << "the last one counts";
  for (const char* other : {"training.lr_scaling is wrong", "x.training.lr is wrong", "seed is wrong", "nothing",
                            "--lr 1: training.lr is wrong"}) {
    EXPECT_EQ(with_flags(other, settings), other);
  }
  EXPECT_EQ(with_flags("give training.lr. Then", settings), "give training.lr. Then (training.lr was set by `--lr 1`)");
}

TEST(Config, KeysThatContradictEachOther) {
  EXPECT_NE(error_of("", {"data.corrupt_kind=human"}).find("data.human_labels is empty"), std::string::npos);
  EXPECT_NE(error_of("", {"data.human_labels=x"}).find("data.corrupt_kind is symmetric"), std::string::npos);
  EXPECT_NE(
      error_of("", {"data.corrupt_kind=human", "data.human_labels=x", "data.corrupt_labels=0.1"}).find("leave it 0"),
      std::string::npos);
  EXPECT_NE(error_of("", {"training.nesterov=true", "training.momentum=0"}).find("training.momentum"),
            std::string::npos);
  EXPECT_NE(error_of("", {"training.scheduler=multistep"}).find("training.milestones"), std::string::npos);
  EXPECT_NE(error_of("", {"selection.scorer=proxy"}).find("selection.proxy.steps"), std::string::npos);
  EXPECT_NE(error_of("", {"selection.shards=3"}).find("power of two"), std::string::npos);
  EXPECT_NE(error_of("", {"selection.gradient.scope=[full, fc.*]"}).find("scope"), std::string::npos);
}

TEST(Config, EveryKeyIsListedWithMeaningAndDefaultAndSettable) {
  const auto rows = list_config_keys();
  EXPECT_GT(rows.size(), 60U);
  for (const auto& row : rows) {
    EXPECT_FALSE(row.meaning.empty()) << row.name;
    EXPECT_NO_THROW(parse("", {row.name + "=" + row.default_value})) << row.name << "=" << row.default_value;
  }
}

TEST(Config, HostileTextIsRefusedBeforeAnythingIsBuiltOfIt) {
  const auto expect = [](const std::string& yaml, const std::string& part) {
    const std::string message = error_of(yaml);
    EXPECT_NE(message.find(part), std::string::npos) << message;
    EXPECT_EQ(message.find("test.yaml"), 0U) << message;
    EXPECT_LT(message.size(), 600U);
  };
  expect("a: &a [x]\nb: *a\n", "test.yaml:1: anchors (&) and aliases (*) are not taken");
  expect("a: *a\n", "anchor");
  expect("training: &t\n  lr: *t\n", "anchors");
  std::string laughs = "l0: &l0 [x]\n";
  for (int i = 1; i < 30; ++i) {
    laughs += fmt::format("l{}: &l{} [*l{}, *l{}, *l{}]\n", i, i, i - 1, i - 1, i - 1);
  }
  expect(laughs, "anchors");
  for (const char* opening : {"[", "{a: ", "- ", "? "}) {
    std::string deep;
    for (int i = 0; i < 50000; ++i) deep += opening;
    expect(deep, "test.yaml:1");
  }
  std::string block;
  for (int i = 0; i < 400; ++i) block += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  expect(block, "test.yaml:17: nested deeper than 16 levels");
  std::string wide = "training: {milestones: [";
  for (int i = 0; i < 30000; ++i) wide += "1,";
  expect(wide + "1]}", "more than 20000 values");
  expect(std::string(300000, '#'), "300000 bytes, where a configuration has at most 262144");
  expect("seed: 1\n---\nseed: 2\n", "second document");
  expect("seed: 1\n...\nseed: 2\n", "second document");
  using namespace std::string_literals;
  expect("seed: 1\nmodel: {name: a\0b}\n"s, "test.yaml:2: byte 23 is a control character");
  expect("seed: 1\n\4training: {lr: 0.5}\n", "test.yaml:2: byte 8 is a control character");  // yaml-cpp would stop here
  expect("output_dir: \xff\n", "not UTF-8");
  expect("output_dir: \xed\xa0\x80\n", "not UTF-8");
  expect("output_dir: \xc0\xaf\n", "not UTF-8");
  expect("training: {epochs: 99999999999999999999999}\n", "expected an integer");
  expect("training: {epochs: -1}\n", "expected an integer in [1, 1000000]");
  expect(std::string(1000, 'k') + ": 1\n", "test.yaml:1: unknown key `kkk");
}

TEST(Config, OverridesAreBoundedInTheSameWay) {
  EXPECT_NE(error_of("", {"training.milestones=" + std::string(5000, '[')}).find("override"), std::string::npos);
  EXPECT_NE(error_of("", {"output_dir=a\x1b[2J"}).find("control character"), std::string::npos);
  EXPECT_NE(error_of("", {"output_dir=&a x"}).find("anchors"), std::string::npos);
  EXPECT_EQ(parse("", {"output_dir=runs/a&b*c"}).output_dir, "runs/a&b*c");
  EXPECT_EQ(parse("output_dir: \"\xc3\xa9\xf0\x9f\x98\x80\"\n").output_dir, "\xc3\xa9\xf0\x9f\x98\x80");
}

}  // namespace
}  // namespace sage
