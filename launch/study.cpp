#include "launch/study.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "core/config_keys.h"
#include "core/config_yaml.h"
#include "core/error.h"
#include "core/files.h"
#include "core/text.h"

namespace sage {
namespace {

constexpr std::size_t most_runs = 10000;
constexpr std::size_t longest_name = 200;  // of a run, which names a folder

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '+';
}

/// One key that the study sets, as `key=value`, and where.
struct Setting {
  std::string key, value, place;
};

/// One value of an axis: what it is called, and what it sets.
struct Choice {
  std::string label;
  std::vector<Setting> settings;
};
struct Axis {
  std::string name;
  std::vector<Choice> choices;
};
struct Group {
  std::string name, place;
  std::vector<Setting> settings;
  std::vector<std::int64_t> seeds;
  std::vector<Axis> axes;
};

/// Reads the nodes of a study; what a setting means is left to the configuration.
class StudyReader {
 public:
  explicit StudyReader(const std::filesystem::path& file) : file_(file), source_(file.string()) {}

  Study read(const std::filesystem::path& base, std::span<const std::string> overrides) {
    if (!std::filesystem::is_regular_file(file_)) throw ConfigError(fmt::format("{}: no such study", source_));
    const YAML::Node root = parse_yaml(read_file(file_), source_);
    expect_map(root, "a study", {"name", "title", "base", "set", "seeds", "groups"});
    Study study;
    study.name = root["name"] ? name_of(root["name"], "name") : file_.stem().string();
    study.title = root["title"] ? text_of(root["title"], "title") : study.name;
    base.empty() ? read_base(root["base"]) : load_base(base);
    if (root["set"]) add_settings(root["set"], "", settings_);
    seeds_ = root["seeds"] ? seeds_of(root["seeds"]) : std::vector<std::int64_t>{0};
    for (const auto& text : overrides) {
      const auto equals = text.find('=');
      const std::string place = fmt::format("override `{}`", text);
      if (equals == std::string::npos || equals == 0) {
        throw ConfigError(fmt::format("{}: expected key=value, for example data.path=/data", place));
      }
      add_setting({text.substr(0, equals), text.substr(equals + 1), place}, overrides_);
    }
    const YAML::Node groups = root["groups"];
    if (!groups) throw ConfigError(fmt::format("{}: `groups` is missing: a study has at least one", source_));
    if (!groups.IsMap() || groups.size() == 0)
      fail(groups, "`groups` is empty: expected `name:` with variants or grid");
    expect_names_once(groups);
    for (const auto& entry : groups) expand(read_group(name_of(entry.first, "a group"), entry.second), study);
    return study;
  }

 private:
  std::string place_of(const YAML::Node& node) const {
    const YAML::Mark mark = node.Mark();
    return mark.is_null() ? source_ : fmt::format("{}:{}", source_, mark.line + 1);
  }

  [[noreturn]] void fail(const YAML::Node& node, const std::string& message) const {
    throw ConfigError(fmt::format("{}: {}", place_of(node), message));
  }

  void expect_names_once(const YAML::Node& map) const {
    std::set<std::string> seen;
    for (const auto& entry : map) {
      if (!entry.first.IsScalar()) fail(entry.first, "a name must be text");
      if (!seen.insert(entry.first.Scalar()).second) {
        fail(entry.first, fmt::format("`{}` is given twice", excerpt(entry.first.Scalar())));
      }
    }
  }

  void expect_map(const YAML::Node& node, const std::string& what, const std::vector<std::string>& known) const {
    if (!node.IsMap()) fail(node, fmt::format("expected {} with the keys {}", what, fmt::join(known, ", ")));
    expect_names_once(node);
    for (const auto& entry : node) {
      const std::string& key = entry.first.Scalar();
      if (std::ranges::find(known, key) != known.end()) continue;
      const std::string near = key.size() <= 100 ? nearest_name(key, known) : "";
      fail(entry.first,
           fmt::format("unknown key `{}`{}; {} has the keys {}", excerpt(key),
                       near.empty() ? "" : fmt::format(" (did you mean `{}`?)", near), what, fmt::join(known, ", ")));
    }
  }

  std::string text_of(const YAML::Node& node, const std::string& what) const {
    if (!node.IsScalar()) fail(node, fmt::format("{} must be text", what));
    return node.Scalar();
  }

  /// Text that may become a part of a folder's name.
  std::string name_of(const YAML::Node& node, const std::string& what) const {
    const std::string name = text_of(node, what);
    if (name.empty() || name.size() > 64 || name.front() == '.' || !std::ranges::all_of(name, is_plain)) {
      fail(node, fmt::format("{} is called `{}`: expected up to 64 letters, digits and _ . +", what, excerpt(name)));
    }
    return name;
  }

  std::vector<std::int64_t> seeds_of(const YAML::Node& node) const {
    std::vector<std::int64_t> seeds;
    if (!node.IsSequence() || node.size() == 0)
      fail(node, "`seeds` must be a list of at least one, for example [1, 2, 3]");
    for (const auto& item : node) {
      const std::string text = text_of(item, "a seed");
      std::int64_t seed = -1;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
      if (error != std::errc{} || end != text.data() + text.size() || seed < 0) {
        fail(item, fmt::format("a seed is `{}`, expected an integer >= 0", excerpt(text)));
      }
      if (std::ranges::find(seeds, seed) != seeds.end()) fail(item, fmt::format("the seed {} is given twice", seed));
      seeds.push_back(seed);
    }
    return seeds;
  }

  void add_setting(Setting setting, std::vector<Setting>& to) const {
    if (setting.key == "seed") {
      throw ConfigError(fmt::format("{}: `seed` is not set here but by `seeds: [1, 2, 3]`", setting.place));
    }
    if (setting.key == "output_dir") {
      throw ConfigError(
          fmt::format("{}: `output_dir` follows from the run's name; `sage sweep --out` says where", setting.place));
    }
    to.push_back(std::move(setting));
  }

  /// Nested groups of keys and dotted names, as in a configuration.
  void add_settings(const YAML::Node& map, const std::string& prefix, std::vector<Setting>& to) const {
    if (map.IsNull()) return;
    if (!map.IsMap()) fail(map, "expected settings, `key: value`, as in a configuration");
    expect_names_once(map);
    for (const auto& entry : map) {
      const std::string key = prefix + entry.first.Scalar();
      if (entry.second.IsMap()) {
        add_settings(entry.second, key + ".", to);
      } else {
        add_setting({key, flow(entry.second), place_of(entry.first)}, to);
      }
    }
  }

  static std::string flow(const YAML::Node& node) {
    YAML::Emitter emitter;
    emitter << YAML::Flow << node;
    return emitter.c_str();
  }

  void read_base(const YAML::Node& base) {
    if (!base) return;
    if (base.IsMap()) return add_settings(base, "", settings_);
    const std::filesystem::path named = text_of(base, "`base`, a configuration file or settings,");
    const auto path = named.is_absolute() ? named : file_.parent_path() / named;
    if (!std::filesystem::is_regular_file(path)) {
      fail(base, fmt::format("base: {} is no file (paths count from the study's folder)", path.string()));
    }
    load_base(path);
  }

  /// Its own mistakes are told once, before those of any run.
  void load_base(const std::filesystem::path& path) {
    base_source_ = path.lexically_normal().string();
    load_config(path, {});
    base_text_ = read_file(path);
  }

  Axis read_variants(const YAML::Node& node) const {
    if (!node.IsMap() || node.size() == 0) fail(node, "`variants` is empty: expected `name: {key: value, ...}` lines");
    return {"variant", read_choices(node)};
  }

  std::vector<Choice> read_choices(const YAML::Node& map) const {
    expect_names_once(map);
    std::vector<Choice> choices;
    for (const auto& entry : map) {
      Choice choice{name_of(entry.first, "a variant"), {}};
      add_settings(entry.second, "", choice.settings);
      choices.push_back(std::move(choice));
    }
    return choices;
  }

  /// `key: [values]`, or `name: {choice: {settings}, ...}`.
  Axis read_axis(const YAML::Node& named, const YAML::Node& values) const {
    const std::string name = text_of(named, "an axis of a grid");
    if (!(values.IsSequence() || values.IsMap()) || values.size() == 0) {
      fail(named, fmt::format("the grid has no values for `{}`: expected `key: [value, ...]`, or named choices with "
                              "settings each",
                              excerpt(name)));
    }
    if (values.IsMap()) return {name_of(named, "an axis"), read_choices(values)};
    Axis axis{name, {}};
    const std::string last = name.substr(name.rfind('.') + 1);
    for (const auto& item : values) {
      const std::string value = flow(item);
      std::string label = last + "_";
      for (char c : item.IsScalar() ? item.Scalar() : value) label += is_plain(c) ? c : '_';
      Choice choice{label, {}};
      add_setting({name, value, place_of(item)}, choice.settings);
      axis.choices.push_back(std::move(choice));
    }
    return axis;
  }

  Group read_group(const std::string& name, const YAML::Node& node) const {
    Group group{name, place_of(node), {}, seeds_, {}};
    expect_map(node, fmt::format("the group `{}`", name), {"set", "seeds", "variants", "grid"});
    if (node["set"]) add_settings(node["set"], "", group.settings);
    if (node["seeds"]) group.seeds = seeds_of(node["seeds"]);
    if (node["variants"]) group.axes.push_back(read_variants(node["variants"]));
    if (const YAML::Node grid = node["grid"]) {
      if (!grid.IsMap() || grid.size() == 0) fail(grid, "`grid` is empty: expected `key: [value, ...]` lines");
      expect_names_once(grid);
      for (const auto& entry : grid) group.axes.push_back(read_axis(entry.first, entry.second));
    }
    if (group.axes.empty()) fail(node, fmt::format("the group `{}` has neither `variants` nor a `grid`", name));
    return group;
  }

  /// All combinations of the axes, the last one fastest, each with all seeds.
  void expand(const Group& group, Study& study) {
    std::size_t count = group.seeds.size();
    for (const Axis& axis : group.axes) count = std::min(count * axis.choices.size(), most_runs + 1);
    if (study.runs.size() + count > most_runs) {
      throw ConfigError(fmt::format("{}: more than {} runs in one study; split it", group.place, most_runs));
    }
    std::vector<std::size_t> at(group.axes.size(), 0);
    for (std::size_t i = 0; i < count / group.seeds.size(); ++i) {
      for (const auto seed : group.seeds) add_run(group, at, seed, study);
      for (std::size_t axis = at.size(); axis-- > 0;) {
        if (++at[axis] < group.axes[axis].choices.size()) break;
        at[axis] = 0;
      }
    }
  }

  void add_run(const Group& group, const std::vector<std::size_t>& at, std::int64_t seed, Study& study) {
    StudyRun run;
    run.group = group.name;
    run.seed = seed;
    std::vector<Setting> settings = settings_;
    settings.insert(settings.end(), group.settings.begin(), group.settings.end());
    for (std::size_t axis = 0; axis < at.size(); ++axis) {
      const Choice& choice = group.axes[axis].choices[at[axis]];
      run.variant += (axis == 0 ? "" : "-") + choice.label;
      run.choices.emplace_back(group.axes[axis].name, choice.label);
      settings.insert(settings.end(), choice.settings.begin(), choice.settings.end());
    }
    run.name = fmt::format("{}-{}-seed{}", run.group, run.variant, seed);
    if (run.name.size() > longest_name) {
      throw ConfigError(fmt::format("{}: the run name `{}...` is longer than {} characters; shorten the names",
                                    group.place, run.name.substr(0, 60), longest_name));
    }
    if (const auto [other, is_new] = places_.emplace(run.name, group.place); !is_new) {
      throw ConfigError(fmt::format("{}: two runs are called {} (the other at {}); rename a group or variant",
                                    group.place, run.name, other->second));
    }
    settings.insert(settings.end(), overrides_.begin(), overrides_.end());
    settings.push_back({"seed", fmt::to_string(seed), group.place});
    run.config = configure(settings, fmt::format("{}: run {}", group.place, run.name));
    run.config.output_dir.clear();  // whatever the base says
    study.runs.push_back(std::move(run));
  }

  /// A message on a single setting begins with where that stands, one on several together with `run`.
  Config configure(const std::vector<Setting>& settings, const std::string& run) const {
    std::vector<std::string> overrides;
    for (const Setting& setting : settings) overrides.push_back(setting.key + "=" + setting.value);
    try {
      return parse_config(base_text_, base_source_, overrides);
    } catch (const ConfigError& error) {
      const std::string message = error.what();
      for (std::size_t i = 0; i < settings.size(); ++i) {
        const std::string named = fmt::format("override `{}`", overrides[i]);
        if (message.starts_with(named)) throw ConfigError(settings[i].place + message.substr(named.size()));
      }
      throw ConfigError(fmt::format("{}: {}", run, message));
    }
  }

  std::filesystem::path file_;
  std::string source_, base_text_, base_source_ = "defaults";
  std::vector<Setting> settings_, overrides_;
  std::vector<std::int64_t> seeds_;
  std::map<std::string, std::string> places_;  // of runs, by name
};

}  // namespace

Study load_study(const std::filesystem::path& file, const std::filesystem::path& base,
                 std::span<const std::string> overrides) {
  return StudyReader(file).read(base, overrides);
}

}  // namespace sage
