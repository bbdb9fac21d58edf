// The table behind the configuration: one row per key, with its meaning, unit, range and where it lives in Config.
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/config.h"

namespace sage {

/// A value that does not fit its key: what() says what was expected ("an integer >= 1").
struct UnfitValue : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ConfigKey {
  std::string name;  ///< dotted
  std::string type;  ///< "integer", "number", "true | false", "text", "list of text", or the choices
  std::string unit;  ///< empty where there is none
  std::string meaning;
  bool is_list = false;
  /// Sets the key from the scalars of a YAML value (one, unless is_list). Throws UnfitValue.
  std::function<void(const std::vector<std::string>&)> set;
  std::function<nlohmann::ordered_json()> get;
};

/// The rows, bound to the fields of `config`, which must outlive them. In the order in which they are shown.
std::vector<ConfigKey> config_keys(Config& config);

/// Of `names`, the one with the smallest edit distance to `name`; empty if none is near.
std::string nearest_name(const std::string& name, const std::vector<std::string>& names);

}  // namespace sage
