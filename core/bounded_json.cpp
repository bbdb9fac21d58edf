#include "core/bounded_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "core/text.h"

namespace sage {

template <class Json>
Json parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.bytes) {
    throw JsonError(fmt::format("{} bytes of JSON, where at most {} are expected", text.size(), limits.bytes));
  }
  using Event = typename Json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::size_t values = 0;
  // The library's parser keeps its own stack, so depth costs it no recursion; what uses the result may recurse.
  const auto watch = [&](int depth, Event event, Json& parsed) {
    if (depth > limits.depth) throw JsonError(fmt::format("it is nested deeper than {} levels", limits.depth));
    if (event == Event::object_end || event == Event::array_end) {
      if (event == Event::object_end) keys.pop_back();
      return true;
    }
    if (++values > limits.values) throw JsonError(fmt::format("it holds more than {} values", limits.values));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::key && !keys.back().insert(parsed.template get<std::string>()).second) {
      throw JsonError(fmt::format("it names '{}' twice", excerpt(parsed.template get<std::string>())));
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const typename Json::exception& error) {
    throw JsonError(fmt::format("it is not valid JSON ({})", excerpt(error.what(), 300)));
  }
}

template <class Json>
std::int64_t whole_number(const Json& value, std::string_view what, std::int64_t low, std::int64_t high) {
  const bool too_large =
      value.is_number_unsigned() && value.template get<std::uint64_t>() > static_cast<std::uint64_t>(high);
  const bool whole = value.is_number_integer() && !too_large;
  const std::int64_t number = whole ? value.template get<std::int64_t>() : 0;
  if (!whole || number < low || number > high) {
    throw JsonError(fmt::format("'{}' is {}, expected a whole number in {}..{}", what,
                                value.is_primitive() ? excerpt(value.dump()) : "a list or object", low, high));
  }
  return number;
}

template nlohmann::json parse_json(std::string_view, const JsonLimits&);
template nlohmann::ordered_json parse_json(std::string_view, const JsonLimits&);
template std::int64_t whole_number(const nlohmann::json&, std::string_view, std::int64_t, std::int64_t);
template std::int64_t whole_number(const nlohmann::ordered_json&, std::string_view, std::int64_t, std::int64_t);

}  // namespace sage
