// Rows of the table of configuration keys: how each kind of value is read, checked and shown.
#pragma once
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/config_keys.h"

namespace sage::config_table {

using Json = nlohmann::ordered_json;
using Scalars = std::vector<std::string>;
constexpr double infinity = std::numeric_limits<double>::infinity();

/// The values that a number may take.
struct Range {
  double low = -infinity, high = infinity;
  bool above_low = false;  // the bound itself is excluded
  bool below_high = false;
  bool holds(double value) const {
    return (above_low ? value > low : value >= low) && (below_high ? value < high : value <= high);
  }
  std::string text() const {
    if (low == -infinity && high == infinity) return "";
    if (high == infinity) return fmt::format(" {} {}", above_low ? ">" : ">=", low);
    return fmt::format(" in {}{}, {}{}", above_low ? '(' : '[', low, high, below_high ? ')' : ']');
  }
};
inline Range at_least(double low) { return {.low = low}; }
inline Range above(double low) { return {.low = low, .above_low = true}; }

template <class Number>
Number parse_number(const std::string& text, const Range& range, const char* what) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(static_cast<double>(value)) ||
      !range.holds(static_cast<double>(value))) {
    throw UnfitValue(fmt::format("{}{}", what, range.text()));
  }
  return value;
}

class Table {
 public:
  void integer(std::string name, std::int64_t& field, Range range, std::string unit, std::string meaning) {
    add(
        std::move(name), "integer" + range.text(), std::move(unit), std::move(meaning),
        [&field, range](const Scalars& s) { field = parse_number<std::int64_t>(s[0], range, "an integer"); },
        [&field] { return Json(field); });
  }
  /// An integer, or `auto`, which is stored as 0.
  void integer_or_auto(std::string name, std::int64_t& field, Range range, std::string unit, std::string meaning) {
    add(
        std::move(name), "integer" + range.text() + " | auto", std::move(unit), std::move(meaning),
        [&field, range](const Scalars& s) {
          field = s[0] == "auto" ? 0 : parse_number<std::int64_t>(s[0], range, "auto, or an integer");
        },
        [&field] { return field == 0 ? Json("auto") : Json(field); });
  }
  void number(std::string name, double& field, Range range, std::string unit, std::string meaning) {
    add(
        std::move(name), "number" + range.text(), std::move(unit), std::move(meaning),
        [&field, range](const Scalars& s) { field = parse_number<double>(s[0], range, "a number"); },
        [&field] { return Json(field); });
  }
  /// A number, or `auto`, which is stored as -1.
  void number_or_auto(std::string name, double& field, Range range, std::string unit, std::string meaning) {
    add(
        std::move(name), "number" + range.text() + " | auto", std::move(unit), std::move(meaning),
        [&field, range](const Scalars& s) {
          field = s[0] == "auto" ? -1.0 : parse_number<double>(s[0], range, "auto, or a number");
        },
        [&field] { return field < 0 ? Json("auto") : Json(field); });
  }
  void flag(std::string name, bool& field, std::string meaning) {
    add(
        std::move(name), "true | false", "", std::move(meaning),
        [&field](const Scalars& s) {
          if (s[0] != "true" && s[0] != "false") throw UnfitValue("true or false");
          field = s[0] == "true";
        },
        [&field] { return Json(field); });
  }
  void text(std::string name, std::string& field, std::string meaning) {
    add(
        std::move(name), "text", "", std::move(meaning), [&field](const Scalars& s) { field = s[0]; },
        [&field] { return Json(field); });
  }
  void choice(std::string name, std::string& field, Scalars choices, std::string meaning) {
    const std::string type = fmt::format("{}", fmt::join(choices, " | "));
    add(
        std::move(name), type, "", std::move(meaning),
        [&field, choices](const Scalars& s) {
          if (std::find(choices.begin(), choices.end(), s[0]) == choices.end()) {
            const std::string near = nearest_name(s[0], choices);
            throw UnfitValue(fmt::format("one of {}{}", fmt::join(choices, ", "),
                                         near.empty() ? "" : fmt::format(" (did you mean {}?)", near)));
          }
          field = s[0];
        },
        [&field] { return Json(field); });
  }
  void texts(std::string name, std::vector<std::string>& field, std::string meaning) {
    add(
        std::move(name), "list of text", "", std::move(meaning), [&field](const Scalars& s) { field = s; },
        [&field] { return Json(field); });
    keys.back().is_list = true;
  }
  void integers(std::string name, std::vector<std::int64_t>& field, Range range, std::string unit,
                std::string meaning) {
    add(
        std::move(name), "list of integers" + range.text(), std::move(unit), std::move(meaning),
        [&field, range](const Scalars& s) {
          std::vector<std::int64_t> values;
          for (const auto& scalar : s)
            values.push_back(parse_number<std::int64_t>(scalar, range, "a list of integers"));
          field = values;
        },
        [&field] { return Json(field); });
    keys.back().is_list = true;
  }

  std::vector<ConfigKey> keys;

 private:
  void add(std::string name, std::string type, std::string unit, std::string meaning,
           std::function<void(const Scalars&)> set, std::function<Json()> get) {
    keys.push_back(
        {std::move(name), std::move(type), std::move(unit), std::move(meaning), false, std::move(set), std::move(get)});
  }
};

}  // namespace sage::config_table
