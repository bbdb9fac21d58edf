#include "core/config.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/config_keys.h"
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

  void read(const std::string& text, const std::string& source) {
    const YAML::Node root = parse(text, source);
    if (root.IsNull()) return;
    if (!root.IsMap()) throw ConfigError(fmt::format("{}: expected `key: value` lines", source));
    std::set<std::string> seen;
    read_map(root, "", source, seen);
  }

  void apply_override(const std::string& text) {
    const std::string source = fmt::format("override `{}`", text);
    const auto equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw ConfigError(fmt::format("{}: expected key=value, for example training.epochs=10", source));
    }
    const YAML::Node value = parse(text.substr(equals + 1), source);
    std::set<std::string> seen;
    read_value(value, text.substr(0, equals), value, source, seen);
  }

 private:
  static YAML::Node parse(const std::string& text, const std::string& source) {
    if (text.size() > largest_config_bytes) {
      throw ConfigError(fmt::format("{}: {} bytes, where a configuration has at most {}; give another file", source,
                                    text.size(), largest_config_bytes));
    }
    if (const std::size_t at = first_non_text(text); at != std::string::npos) {
      throw ConfigError(
          fmt::format("{}:{}: byte {} is a control character or not UTF-8; a configuration is plain text", source,
                      1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'), at));
    }
    try {
      Bounds::check(text);
      return YAML::Load(text);
    } catch (const YAML::Exception& error) {
      throw ConfigError(fmt::format("{}:{}: not valid YAML: {}", source, error.mark.line + 1, excerpt(error.msg, 300)));
    } catch (const Bounds::Refusal& refusal) {
      throw ConfigError(fmt::format("{}:{}: {}", source, refusal.mark.line + 1, refusal.reason));
    }
  }

  static std::string place(const std::string& source, const YAML::Node& node) {
    const YAML::Mark mark = node.Mark();
    return mark.is_null() || source.starts_with("override") ? source : fmt::format("{}:{}", source, mark.line + 1);
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
  demand(!s.gradient.scope.empty(), "selection.gradient.scope is empty: expected classifier, full or name patterns");
  for (const auto& scope : s.gradient.scope) {
    demand(s.gradient.scope.size() == 1 || (scope != "classifier" && scope != "full"),
           fmt::format("selection.gradient.scope: {} stands for itself; a list holds parameter-name patterns", scope));
  }
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

Config parse_config(const std::string& yaml_text, const std::string& source, std::span<const std::string> overrides) {
  Config config;
  Reader reader(config);
  reader.read(yaml_text, source);
  for (const auto& text : overrides) reader.apply_override(text);
  check_together(config);
  return config;
}

Config load_config(const std::filesystem::path& yaml_file, std::span<const std::string> overrides) {
  std::string text;
  if (!yaml_file.empty()) {
    if (!std::filesystem::is_regular_file(yaml_file)) {
      throw ConfigError(fmt::format("{}: no such configuration file", yaml_file.string()));
    }
    text = read_file(yaml_file, largest_config_bytes);
  }
  return parse_config(text, yaml_file.empty() ? "defaults" : yaml_file.string(), overrides);
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
