// YAML text as nodes, within the bounds of a configuration, for other files of settings.
#pragma once
#include <string>

namespace YAML {
class Node;
}

namespace sage {

/// The one document in `text`. Throws ConfigError naming `source` and line if it is not plain text or not YAML, is
/// larger or deeper than a configuration ever is, or uses anchors.
YAML::Node parse_yaml(const std::string& text, const std::string& source);

}  // namespace sage
