#include "core/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/config_keys.h"
#include "core/config_source.h"
#include "core/config_yaml.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"

namespace sage {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::size_t largest_config_bytes = 1 << 18;
constexpr int most_nodes = 20000;
constexpr std::size_t most_levels = 16;

/// What a configuration may look like, looked at event by event before anything is built of it: yaml-cpp itself would
/// expand aliases, and build whatever the text describes.
class Bounds : public YAML::EventHandler {
 public:
  struct Refusal {
    YAML::Mark mark;
    std::string reason;
  };
  /// Throws Refusal if `text` passes a bound or uses what a configuration never needs, YAML::Exception if it is not
  /// YAML.
  static void check(const std::string& text) {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Bounds bounds;
    if (!parser.HandleNextDocument(bounds)) return;
    const YAML::Mark first_end = bounds.last_;
    if (parser.HandleNextDocument(bounds)) refuse(first_end, "a second document begins after this; give one");
  }

 private:
  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& reason) { throw Refusal{mark, reason}; }
  void count(const YAML::Mark& mark, YAML::anchor_t anchor) {
    last_ = mark;
    if (anchor != YAML::NullAnchor) refuse(mark, "anchors (&) and aliases (*) are not taken; write the value out");
    if (++nodes_ > most_nodes) refuse(mark, fmt::format("more than {} values", most_nodes));
  }
  void begin(const YAML::Mark& mark, YAML::anchor_t anchor) {
    count(mark, anchor);
    if (++levels_ > most_levels) refuse(mark, fmt::format("nested deeper than {} levels", most_levels));
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { count(mark, anchor); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override { count(mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor, const std::string&) override {
    count(mark, anchor);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    begin(mark, anchor);
  }
  void OnSequenceEnd() override { --levels_; }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    begin(mark, anchor);
  }
  void OnMapEnd() override { --levels_; }

  YAML::Mark last_;
  int nodes_ = 0;
  std::size_t levels_ = 0;
};

/// Reads YAML nodes into the table of keys. `device: cuda` is accepted for `device.type: cuda`.
class Reader {
 public:
  explicit Reader(Config& config) : keys_(config_keys(config)) {
    for (const auto& key : keys_) {
      names_.push_back(key.name);
      for (auto dot = key.name.find('.'); dot != std::string::npos; dot = key.name.find('.', dot + 1)) {
        groups_.insert(key.name.substr(0, dot));
      }
    }
    names_.insert(names_.end(), groups_.begin(), groups_.end());
  }
  friend YAML::Node sage::parse_yaml(const std::string& text, const std::string& source);

  /// Returns the names of the keys that `text` gives.
  std::set<std::string> read(const std::string& text, const std::string& source) {
    const YAML::Node root = parse(text, source);
    std::set<std::string> seen;
    if (root.IsNull()) return seen;
    if (!root.IsMap()) throw ConfigError(fmt::format("{}: expected `key: value` lines", source));
    read_map(root, "", source, seen);
    return seen;
  }

  /// Returns the names of the keys that `setting` gives: several where it is of a group.
  std::set<std::string> apply(const ConfigSetting& setting) {
    check_text(setting.value, setting.origin);
    const YAML::Node value = setting.is_plain ? YAML::Node(setting.value) : parse(setting.value, setting.origin);
    std::set<std::string> seen;
    read_value(value, setting.key, value, setting.origin, seen);
    return seen;
  }

 private:
  static YAML::Node parse(const std::string& text, const std::string& source) {
    check_text(text, source);
    try {
      Bounds::check(text);
      return YAML::Load(text);
    } catch (const YAML::Exception& error) {
      throw ConfigError(fmt::format("{}:{}: not valid YAML: {}", source, error.mark.line + 1, excerpt(error.msg, 300)));
    } catch (const Bounds::Refusal& refusal) {
      throw ConfigError(fmt::format("{}:{}: {}", source, refusal.mark.line + 1, refusal.reason));
    }
  }

  static void check_text(const std::string& text, const std::string& source) {
    if (text.size() > largest_config_bytes) {
      throw ConfigError(fmt::format("{}: {} bytes, where a configuration has at most {}; give another file", source,
                                    text.size(), largest_config_bytes));
    }
    if (const std::size_t at = first_non_text(text); at != std::string::npos) {
      throw ConfigError(
          fmt::format("{}:{}: byte {} is a control character or not UTF-8; a configuration is plain text", source,
                      1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'), at));
    }
  }

  static std::string place(const std::string& source, const YAML::Node& node) {
    const YAML::Mark mark = node.Mark();
    const bool has_lines = !mark.is_null() && !source.starts_with("override") && !source.starts_with("--");
    return has_lines ? fmt::format("{}:{}", source, mark.line + 1) : source;
  }

  void read_map(const YAML::Node& map, const std::string& prefix, const std::string& source,
                std::set<std::string>& seen) {
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) throw ConfigError(fmt::format("{}: a key must be text", place(source, entry.first)));
      read_value(entry.second, prefix + entry.first.Scalar(), entry.first, source, seen);
    }
  }

  /// `named_at` is the node of the key: what messages point at.
  void read_value(const YAML::Node& value, std::string name, const YAML::Node& named_at, const std::string& source,
                  std::set<std::string>& seen) {
    if (name == "device" && value.IsScalar()) name = "device.type";
    for (const auto& key : keys_) {
      if (key.name != name) continue;
      if (!seen.insert(name).second) {
        throw ConfigError(fmt::format("{}: {} is given twice", place(source, named_at), name));
      }
      return set(key, value, source);
    }
    const bool is_group = groups_.contains(name);
    if (is_group && value.IsMap()) return read_map(value, name + ".", source, seen);
    if (is_group)
      throw ConfigError(fmt::format("{}: {} is a group of keys, not a value", place(source, named_at), name));
    const std::string near = name.size() <= 100 ? nearest_name(name, names_) : "";  // no key is so long
    throw ConfigError(fmt::format("{}: unknown key `{}`{}; `sage config list` shows all keys", place(source, named_at),
                                  excerpt(name), near.empty() ? "" : fmt::format(" (did you mean `{}`?)", near)));
  }

  static void set(const ConfigKey& key, const YAML::Node& value, const std::string& source) {
    std::vector<std::string> scalars;
    std::string shown;
    bool fits = true;
    if (value.IsSequence() && key.is_list) {
      for (const auto& item : value) {
        fits = fits && item.IsScalar();
        if (item.IsScalar()) scalars.push_back(item.Scalar());
      }
      shown = "a list";
    } else if (value.IsScalar()) {
      scalars.push_back(value.Scalar());
      shown = fmt::format("`{}`", excerpt(value.Scalar()));
    } else if (value.IsNull() && key.type == "text") {
      scalars.emplace_back();
    } else {
      fits = false;
      shown = value.IsNull() ? "nothing" : value.IsMap() ? "a group of keys" : "a list";
    }
    if (!fits) {
      throw ConfigError(fmt::format("{}: {} is {}, expected {}", place(source, value), key.name, shown, key.type));
    }
    try {
      key.set(scalars);
    } catch (const UnfitValue& error) {
      throw ConfigError(fmt::format("{}: {} is {}, expected {}", place(source, value), key.name, shown, error.what()));
    }
  }

  std::vector<ConfigKey> keys_;
  std::vector<std::string> names_;  // of keys and groups
  std::set<std::string> groups_;
};

/// What no single key can say.
void check_together(const Config& c) {
  auto demand = [](bool holds, const std::string& message) {
    if (!holds) throw ConfigError(message);
  };
  const auto& t = c.training;
  const auto& s = c.selection;
  demand(!t.nesterov || t.momentum > 0, "training.nesterov needs training.momentum above 0");
  demand(t.min_lr <= t.lr, fmt::format("training.min_lr ({}) is above training.lr ({})", t.min_lr, t.lr));
  demand(std::is_sorted(t.milestones.begin(), t.milestones.end()), "training.milestones must be ascending");
  demand(t.scheduler != "multistep" || !t.milestones.empty(),
         "training.scheduler is multistep, but training.milestones is empty: give the epochs, for example [60, 120]");
  demand(t.accumulate <= 1 || t.batch_size_per_rank > 0 || t.accumulate <= t.batch_size,
         fmt::format("training.accumulate ({}) is above training.batch_size ({}): a pass would have no example",
                     t.accumulate, t.batch_size));
  demand(t.precision != "fp16" || c.device.type != "cpu",
         "training.precision is fp16, which needs a GPU and its loss scaler: use bf16 with device.type=cpu");
  demand(!t.cuda_graph || c.device.type != "cpu", "training.cuda_graph needs a GPU, but device.type is cpu");
  demand((s.shards & (s.shards - 1)) == 0, fmt::format("selection.shards is {}, expected a power of two", s.shards));
  demand(s.scorer != "proxy" || s.proxy.steps > 0,
         "selection.scorer is proxy, but selection.proxy.steps is 0: say how long the proxy trains");
  const auto& d = c.data;
  const bool by_people = d.corrupt_kind == "human";
  demand(
      !by_people || !d.human_labels.empty(),
      "data.corrupt_kind is human, but data.human_labels is empty: name the file of labels (CIFAR-N, one byte each)");
  demand(
      by_people || d.human_labels.empty(),
      fmt::format("data.human_labels is set, but data.corrupt_kind is {}: set data.corrupt_kind=human to use the file",
                  d.corrupt_kind));
  demand(
      !by_people || d.corrupt_labels == 0,
      fmt::format("data.corrupt_labels is {}, but with data.corrupt_kind human the labels of data.human_labels say how "
                  "many are wrong: leave it 0",
                  d.corrupt_labels));
  demand(!s.gradient.scope.empty(), "selection.gradient.scope is empty: expected classifier, full or name patterns");
  for (const auto& scope : s.gradient.scope) {
    demand(s.gradient.scope.size() == 1 || (scope != "classifier" && scope != "full"),
           fmt::format("selection.gradient.scope: {} stands for itself; a list holds parameter-name patterns", scope));
  }
}

std::string text_of(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file)) {
    throw ConfigError(fmt::format("{}: no such configuration file", file.string()));
  }
  return read_file(file, largest_config_bytes);
}

Json nested(const Config& config) {
  Config copy = config;
  Json root = Json::object();
  for (const auto& key : config_keys(copy)) {
    Json* at = &root;
    std::size_t from = 0;
    for (auto dot = key.name.find('.'); dot != std::string::npos; dot = key.name.find('.', from)) {
      at = &(*at)[key.name.substr(from, dot - from)];
      from = dot + 1;
    }
    (*at)[key.name.substr(from)] = key.get();
  }
  return root;
}

void emit(const Json& node, int depth, std::string& out) {
  for (const auto& [name, value] : node.items()) {
    out += fmt::format("{:{}}{}:", "", 2 * depth, name);
    if (value.is_object()) {
      out += '\n';
      emit(value, depth + 1, out);
    } else {
      out += ' ' + value.dump() + '\n';  // JSON scalars and lists are YAML
    }
  }
}

}  // namespace

ConfigSetting to_setting(const std::string& key_and_value) {
  const std::string origin = fmt::format("override `{}`", key_and_value);
  const auto equals = key_and_value.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError(fmt::format("{}: expected key=value, for example training.epochs=10", origin));
  }
  return {key_and_value.substr(0, equals), key_and_value.substr(equals + 1), origin};
}

std::string with_flags(const std::string& message, std::span<const ConfigSetting> settings) {
  const auto names = [&](const std::string& key) {
    for (auto at = message.find(key); at != std::string::npos; at = message.find(key, at + 1)) {
      const auto is_of_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
      const std::size_t end = at + key.size();
      const bool goes_on =
          end < message.size() && (is_of_name(message[end]) ||
                                   (message[end] == '.' && end + 1 < message.size() && is_of_name(message[end + 1])));
      if ((at == 0 || (!is_of_name(message[at - 1]) && message[at - 1] != '.')) && !goes_on) return true;
    }
    return false;
  };
  std::vector<std::string> given;
  for (auto setting = settings.begin(); setting != settings.end(); ++setting) {
    const bool is_last = std::none_of(std::next(setting), settings.end(),
                                      [&](const ConfigSetting& later) { return later.key == setting->key; });
    if (!is_last || !setting->origin.starts_with("--") || message.find(setting->origin) != std::string::npos) continue;
    if (names(setting->key)) given.push_back(fmt::format("{} was set by `{}`", setting->key, setting->origin));
  }
  return given.empty() ? message : fmt::format("{} ({})", message, fmt::join(given, ", "));
}

bool ConfigSource::sets(std::string_view key) const {
  return std::ranges::any_of(settings, [&](const ConfigSetting& setting) { return setting.key == key; });
}

std::set<std::string> ConfigSource::given_keys() const {
  Config config;
  Reader reader(config);
  std::set<std::string> keys;
  if (!file.empty()) keys = reader.read(text_of(file), file.string());
  for (const auto& setting : settings) keys.merge(reader.apply(setting));
  return keys;
}

Config ConfigSource::load_over(const std::string& yaml_text, const std::string& name) const {
  Config config;
  Reader reader(config);
  for (const auto& setting : defaults) reader.apply(setting);
  reader.read(yaml_text, name);
  for (const auto& setting : settings) reader.apply(setting);
  try {
    check_together(config);
  } catch (const ConfigError& error) {
    throw ConfigError(with_flags(error.what(), settings), error.where());
  }
  return config;
}

Config ConfigSource::load() const {
  if (file.empty()) return load_over("", "defaults");
  return load_over(text_of(file), file.string());
}

Config parse_config(const std::string& yaml_text, const std::string& source, std::span<const std::string> overrides) {
  ConfigSource layers;
  for (const auto& text : overrides) layers.settings.push_back(to_setting(text));
  return layers.load_over(yaml_text, source);
}

Config load_config(const std::filesystem::path& yaml_file, std::span<const std::string> overrides) {
  ConfigSource layers;
  layers.file = yaml_file;
  for (const auto& text : overrides) layers.settings.push_back(to_setting(text));
  return layers.load();
}

YAML::Node parse_yaml(const std::string& text, const std::string& source) { return Reader::parse(text, source); }

std::string to_yaml(const Config& config) {
  std::string out;
  emit(nested(config), 0, out);
  return out;
}

std::string to_json(const Config& config) { return nested(config).dump(2); }

std::vector<ConfigKeyInfo> list_config_keys() {
  Config defaults;
  std::vector<ConfigKeyInfo> rows;
  for (const auto& key : config_keys(defaults)) {
    rows.push_back({key.name, key.type, key.get().dump(), key.unit, key.meaning});
  }
  return rows;
}

}  // namespace sage
