// Where a configuration comes from, layer over layer, and who set what: for command lines.
#pragma once
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"

namespace sage {

/// One key that is set outside a configuration file.
struct ConfigSetting {
  std::string key, value;
  std::string origin;     ///< what the user typed, at the head of messages: "--epochs 20", "override `seed=1`"
  bool is_plain = false;  ///< the value is taken as it stands, not as YAML (a path may hold any character)
};

/// The setting that `key=value` means. Throws ConfigError if it has no `=`.
ConfigSetting to_setting(const std::string& key_and_value);

/// Later layers win: the program's defaults, `defaults`, the file, `settings` in order.
struct ConfigSource {
  std::filesystem::path file;  ///< may be empty
  std::vector<ConfigSetting> settings;
  std::vector<ConfigSetting> defaults;
  std::string defaults_of;  ///< whose `defaults` are, for people; empty where there are none

  bool sets(std::string_view key) const;
  /// The keys that the file or `settings` give, in whatever form (`a.b`, or `b` within a group `a`). Throws ConfigError
  /// as load() does for what cannot be read.
  std::set<std::string> given_keys() const;
  /// Throws ConfigError as load_config does; a message on keys that a flag has set names the flag too.
  Config load() const;
  /// The same with `yaml_text`, called `name` in messages, in the place of the file.
  Config load_over(const std::string& yaml_text, const std::string& name) const;
};

/// `message`, and for each key that it names and a flag (`--...`) has set, that flag.
std::string with_flags(const std::string& message, std::span<const ConfigSetting> settings);

}  // namespace sage
