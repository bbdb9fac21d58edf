#include "launch/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "core/config_keys.h"
#include "core/error.h"
#include "data/registry.h"

namespace sage {
namespace {

namespace fs = std::filesystem;

constexpr const char* bare_pretrained_origin = "--pretrained";

/// CLI11's words for an option whose value was left out.
bool is_left_out(const std::string& value) { return value.empty() || value == "{}" || value == "true"; }

bool has_equals(const std::string& text) { return text.find('=') != std::string::npos; }

std::vector<std::string> names_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

void add_setting(ConfigSource& source, std::string_view key, std::string value, std::string origin) {
  source.settings.push_back({std::string(key), std::move(value), std::move(origin), /*is_plain=*/true});
}

/// What `--name value` sets.
void add_flag(ConfigSource& source, const Flag& flag, const std::string& value, bool has_mode) {
  const std::string origin =
      fmt::format("--{}{}", flag.name, flag.value == FlagValue::none ? "" : fmt::format(" {}", value));
  if (flag.value == FlagValue::none && value != "true") {
    throw ConfigError(
        fmt::format("--{} takes no value (it sets {}={})", flag.name, flag.sets.front().key, flag.sets.front().value));
  }
  const std::vector<FlagSetting>* sets = &flag.sets;
  if (has_mode && !flag.sets_with_mode.empty()) sets = &flag.sets_with_mode;
  std::vector<std::string> choices;
  for (const FlagChoice& choice : flag.choices) {
    choices.emplace_back(choice.given);
    if (choice.given == value) sets = &choice.sets;
  }
  if (sets->empty()) {
    const std::string near = nearest_name(value, choices);
    throw ConfigError(fmt::format("--{} is `{}`, expected one of {}{} (it sets {})", flag.name, value,
                                  fmt::join(choices, ", "), near.empty() ? "" : fmt::format("; did you mean {}?", near),
                                  flag.choices.front().sets.front().key));
  }
  for (const FlagSetting& set : *sets) {
    add_setting(source, set.key, set.value == "$" ? value : std::string(set.value), origin);
  }
}

/// The defaults of SAGE's program that are not the program's own.
std::vector<FlagSetting> sage_defaults() {
  return {{"data.name", "cifar100"},
          {"model.name", "resnext29_32x4d"},
          {"training.epochs", "200"},
          {"output.save_interval", "20"}};
}

std::vector<FlagSetting> crest_defaults() {
  return {{"data.name", "cifar10"},
          {"model.name", "resnet20"},
          {"selection.method", "crest"},
          {"selection.fraction", "0.1"},
          // For the methods beside CREST: a new subset in each short epoch, from the first on.
          {"selection.no_warmup", "true"},
          {"selection.refresh_epochs", "1"},
          {"training.epochs", "200"},
          {"training.batch_size", "128"},
          {"training.optimizer", "sgd"},
          {"training.lr", "0.1"},
          {"training.momentum", "0.9"},
          {"training.weight_decay", "0.0001"},
          {"training.scheduler", "multistep"},
          {"training.gamma", "0.1"}};
}

std::vector<FlagSetting> dropout_defaults() {
  return {{"data.name", "cifar10"},        {"model.name", "mobilenet_v2"},  {"training.epochs", "200"},
          {"training.optimizer", "adamw"}, {"training.lr", "0.0003"},       {"training.weight_decay", "0.01"},
          {"training.scheduler", "step"},  {"training.step_size", "1"},     {"training.gamma", "0.98"},
          {"dropout.threshold", "0.3"},    {"dropout.start_revision", "-1"}};
}

/// Those that would win over other keys of the file and the command line, where these say nothing of it: the size of a
/// rank's batch over that of all ranks, no selection over a selection that is described.
std::vector<ConfigSetting> overruling_dropout_defaults(const std::set<std::string>& given) {
  std::vector<ConfigSetting> settings;
  if (!given.contains("training.batch_size") && !given.contains("training.batch_size_per_rank")) {
    settings.push_back({"training.batch_size_per_rank", "32", ""});
  }
  const auto is_of_selection = [](const std::string& key) { return key.starts_with("selection."); };
  if (std::ranges::none_of(given, is_of_selection)) settings.push_back({"selection.mode", "none", ""});
  return settings;
}

/// What the defaults of a program say of its data set and of its number of epochs, once both are known.
std::vector<ConfigSetting> dependent_defaults(Recipe recipe, const Config& config) {
  std::vector<ConfigSetting> settings;
  const auto set = [&](const char* key, std::string value) { settings.push_back({key, std::move(value), ""}); };
  const std::string& name = config.data.name;
  if (name == "imagenet") {
    set("data.augment.random_resized_crop", "true");
    set("data.augment.flip", "true");
    set("data.image_size", "224");
  } else if (name == "cifar10" || name == "cifar100" || name == "tiny_imagenet" || name == "tinyimagenet") {
    set("data.augment.crop", "4");
    set("data.augment.flip", "true");
  }
  if (recipe == Recipe::crest) {
    const auto epochs = static_cast<double>(config.training.epochs);
    const auto part = [&](double of) { return std::max<std::int64_t>(1, std::llround(of * epochs)); };
    set("training.milestones", fmt::format("[{}, {}]", part(0.6), part(0.85)));
    set("training.lr_warmup_epochs", fmt::format("{}", epochs / 10));
  }
  return settings;
}

std::vector<FlagSetting> defaults_of(Recipe recipe) {
  switch (recipe) {
    case Recipe::sage:
      return sage_defaults();
    case Recipe::crest:
      return crest_defaults();
    case Recipe::dropout:
      return dropout_defaults();
    case Recipe::none:
      break;
  }
  return {};
}

const char* name_of(Recipe recipe) {
  switch (recipe) {
    case Recipe::sage:
      return "SAGE's program";
    case Recipe::crest:
      return "CREST's program";
    case Recipe::dropout:
      return "the programs of Progressive Data Dropout";
    case Recipe::none:
      break;
  }
  return "";
}

/// The last value of each flag on a command line.
using LastValues = std::map<std::string_view, std::string>;

bool asks_for_crest(const LastValues& last) {
  const auto method = last.find("selection_method");
  return method != last.end() && method->second == "crest";
}

void refuse_contradictions(const LastValues& last, bool is_crest, bool resumes) {
  const auto exclude = [&](const char* a, const char* b, const char* why) {
    if (!last.contains(a) || !last.contains(b)) return;
    throw ConfigError(fmt::format("--{} and --{} exclude each other: {}", a, b, why));
  };
  exclude("no_selection", "single_selection", "train on all data, or on a subset that is chosen once");
  exclude("no_selection", "no_warmup", "without a selection there is none before the first epoch");
  if (const auto warmup = last.find("warmup_epochs"); warmup != last.end() && warmup->second != "0") {
    exclude("no_warmup", "warmup_epochs", "select before the first epoch, or after so many");
  }
  if (resumes && last.contains("pretrained")) {
    throw ConfigError(
        "--resume and --pretrained exclude each other: a resumed run goes on from its checkpoint's weights");
  }
  if (last.contains("mode") && (is_crest || asks_for_crest(last))) {
    throw ConfigError(fmt::format("{} and --mode exclude each other: CREST chooses the batches that it trains on",
                                  is_crest ? "`sage crest`" : "--selection_method crest"));
  }
}

/// Puts what the recipe's program takes for granted below everything else.
void add_defaults(ConfigSource& source, Recipe recipe) {
  if (recipe == Recipe::none) return;
  source.defaults_of = name_of(recipe);
  for (const auto& [key, value] : defaults_of(recipe)) {
    source.defaults.push_back({std::string(key), std::string(value), ""});
  }
  if (recipe == Recipe::dropout) {
    for (auto& setting : overruling_dropout_defaults(source.given_keys())) {
      source.defaults.push_back(std::move(setting));
    }
  }

  ConfigSource known = source;
  known.defaults.push_back({"training.milestones", "[1]", ""});  // until the number of epochs is known
  for (auto& setting : dependent_defaults(recipe, known.load())) source.defaults.push_back(std::move(setting));
}

/// Where --pretrained without a value looks.
std::string weights_of(const std::string& model) {
  return (default_data_folder() / "weights" / (model + ".safetensors")).string();
}

}  // namespace

ConfigArguments::ConfigArguments(CLI::App& command, const std::string* resume) : command_(command), resume_(resume) {
  const auto place = [this]() -> std::vector<std::string>& {
    return *values_.emplace_back(std::make_unique<std::vector<std::string>>());
  };
  positional_ =
      command.add_option("config", place(), "CONFIG.yaml, then any number of key=value (see `sage config list`)");
  command.allow_extras();  // refuse_unknown() has better words
  for (const Flag& flag : config_flags()) {
    auto* option = command.add_option(fmt::format("--{}", flag.name), place(), std::string(flag.meaning));
    option->group(std::string(flag.group))->type_name(flag.value == FlagValue::none ? "" : "VALUE");
    switch (flag.value) {
      case FlagValue::required:
        option->expected(1);
        break;
      case FlagValue::none:
        option->expected(0);
        break;
      case FlagValue::optional:
        option->expected(0, 1);
        break;
    }
    option->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    options_.emplace_back(option, &flag);
  }
}

void ConfigArguments::refuse_unknown() const {
  for (const std::string& argument : command_.remaining()) {
    const std::string name = argument.substr(0, argument.find('='));
    const std::string near = nearest_name(name, names_of(command_));
    throw ConfigError(fmt::format("unknown option {}{}; `sage {} --help` shows all", name,
                                  near.empty() ? "" : fmt::format(" (did you mean {}?)", near), command_.get_name()));
  }
}

std::vector<ConfigArguments::Given> ConfigArguments::in_order() const {
  std::map<const CLI::Option*, const Flag*> flag_of(options_.begin(), options_.end());
  std::map<const CLI::Option*, std::size_t> used;
  std::vector<Given> given;
  for (const CLI::Option* option : command_.parse_order()) {
    const bool is_flag = flag_of.contains(option);
    if (!is_flag && option != positional_) continue;
    const auto& values = option->results();
    const std::size_t at = used[option]++;
    given.push_back({is_flag ? flag_of.at(option) : nullptr, at < values.size() ? values[at] : ""});
  }
  return given;
}

ConfigSource ConfigArguments::source(bool is_crest) const {
  refuse_unknown();
  const std::vector<Given> given = in_order();
  LastValues last;
  for (const Given& one : given) {
    if (one.flag != nullptr) last[one.flag->name] = one.value;
  }
  const bool resumes = resume_ != nullptr && !resume_->empty();
  refuse_contradictions(last, is_crest, resumes);

  ConfigSource source;
  bool is_first = true, bare_pretrained = false;
  for (const Given& one : given) {
    // Behind an option whose value may be missing, a setting is no value.
    const bool has_value = one.flag == nullptr || one.flag->value != FlagValue::optional ||
                           (!is_left_out(one.value) && (!has_equals(one.value) || fs::exists(one.value)));
    if (!has_value) {
      bare_pretrained = true;
      source.settings.push_back({"model.pretrained", "", bare_pretrained_origin, true});  // filled below
    }
    if (one.flag != nullptr && has_value) {
      add_flag(source, *one.flag, one.value, last.contains("mode"));
    } else if (one.flag == nullptr || !is_left_out(one.value)) {
      // `CONFIG.yaml a.b=1` and `a.b=1`: a first argument with a `=` is a setting already.
      const bool is_file = is_first && (!has_equals(one.value) || fs::is_regular_file(one.value));
      if (is_file) source.file = one.value;
      if (!is_file) source.settings.push_back(to_setting(one.value));
      is_first = false;
    }
  }

  Recipe recipe = Recipe::none;
  if (is_crest || asks_for_crest(last)) {
    recipe = Recipe::crest;
  } else if (last.contains("mode")) {
    recipe = Recipe::dropout;
  } else if (!last.empty() && source.file.empty() && !resumes) {
    recipe = Recipe::sage;
  }
  if (recipe == Recipe::none && !bare_pretrained) return source;
  add_defaults(source, recipe);
  if (bare_pretrained) {
    const std::string file = weights_of(source.load().model.name);
    for (ConfigSetting& setting : source.settings) {
      if (setting.origin == bare_pretrained_origin) setting.value = file;
    }
  }
  return source;
}

void ConfigArguments::check_pretrained(const ConfigSource& source) {
  for (const ConfigSetting& one : source.settings) {
    std::error_code error;
    if (one.origin != bare_pretrained_origin || fs::is_regular_file(one.value, error)) continue;
    throw ConfigError(fmt::format(
        "--pretrained without a value takes {} (model.pretrained), which is not there; name a safetensors file of "
        "weights with torchvision's names (--pretrained FILE), or make this one, for example in Python: "
        "safetensors.torch.save_file(torchvision.models.{}(weights=\"DEFAULT\").state_dict(), \"{}\")",
        one.value, fs::path(one.value).stem().string(), one.value));
  }
}

}  // namespace sage
