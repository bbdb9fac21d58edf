// JSON from files that may be damaged or hostile: bounded in size, depth and number of values, no key twice.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sage {

/// What JSON holds is not what was expected. The caller names the file and the way out.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct JsonLimits {
  std::size_t bytes = std::size_t{64} << 20;  ///< of the text
  int depth = 8;                              ///< objects and lists within each other
  std::size_t values = 4'000'000;  ///< objects, lists, keys and scalars: each takes up to a hundred bytes of memory
};

/// Parses `text` into nlohmann::json or nlohmann::ordered_json. Throws JsonError if it is not JSON (RFC 8259, UTF-8
/// included), if a limit is passed, or if an object names a key twice.
template <class Json>
Json parse_json(std::string_view text, const JsonLimits& limits = {});
extern template nlohmann::json parse_json(std::string_view, const JsonLimits&);
extern template nlohmann::ordered_json parse_json(std::string_view, const JsonLimits&);

/// The whole number that `value` is. Throws JsonError naming `what` if it is no whole number (the library would convert
/// 1e300 or true) or outside of the range.
template <class Json>
std::int64_t whole_number(const Json& value, std::string_view what, std::int64_t low = 0,
                          std::int64_t high = std::numeric_limits<std::int64_t>::max());
extern template std::int64_t whole_number(const nlohmann::json&, std::string_view, std::int64_t, std::int64_t);
extern template std::int64_t whole_number(const nlohmann::ordered_json&, std::string_view, std::int64_t, std::int64_t);

}  // namespace sage
