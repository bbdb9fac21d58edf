#include "core/bounded_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/text.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using nlohmann::json;
using testing::contains;
using testing::message_of;

std::string refusal(const std::string& text, const JsonLimits& limits = {}) {
  return message_of<JsonError>([&] { parse_json<json>(text, limits); });
}

TEST(BoundedJson, ReadsWhatTheLibraryReads) {
  const std::string text = R"({"b":[1,-2,3.5,null,true],"a":{"x":"\u00e9"},"c":[{"k":1},{"k":2}]})";
  EXPECT_EQ(parse_json<json>(text), json::parse(text));
  EXPECT_EQ(parse_json<nlohmann::ordered_json>(text).dump(), nlohmann::ordered_json::parse(text).dump());
}

TEST(BoundedJson, RefusesWhatPassesALimit) {
  EXPECT_TRUE(contains(refusal("[[[1]]]", {.depth = 2}), "nested deeper than 2"));
  EXPECT_EQ(refusal("[[1]]", {.depth = 2}), "");
  for (const char* opening : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 200000; ++i) deep += opening;
    EXPECT_TRUE(contains(refusal(deep), "nested deeper than 8"));
  }
  EXPECT_TRUE(contains(refusal("[1,2,3]", {.values = 3}), "more than 3 values"));
  EXPECT_EQ(refusal("[1,2]", {.values = 3}), "");
  EXPECT_TRUE(contains(refusal("[1,2]", {.bytes = 4}), "5 bytes of JSON, where at most 4"));
}

TEST(BoundedJson, RefusesKeysTwiceAndWhatIsNoJson) {
  EXPECT_TRUE(contains(refusal(R"({"a":1,"b":{"a":1},"a":2})"), "names 'a' twice"));
  EXPECT_EQ(refusal(R"({"a":1,"b":{"a":1},"c":{"a":2}})"), "");
  for (const char* text :
       {"", "{", "nul", "[1,]", "{\"a\" 1}", "\"\xff\"", "\"\xed\xa0\x80\"", "[1] x", "01", "\"\n\""}) {
    EXPECT_TRUE(contains(refusal(text), "not valid JSON")) << text;
  }
  EXPECT_LT(refusal("\"" + std::string(100000, 'a')).size(), 500U);
}

TEST(BoundedJson, WholeNumbersAreNotConverted) {
  EXPECT_EQ(whole_number(json(7), "n"), 7);
  EXPECT_EQ(whole_number(json(-7), "n", -10), -7);
  EXPECT_EQ(whole_number(json(9223372036854775807ULL), "n"), 9223372036854775807LL);
  for (const json& value : {json(-1), json(9223372036854775808ULL), json(1e300), json(1.0), json(true), json("1"),
                            json(nullptr), json::array()}) {
    EXPECT_TRUE(contains(message_of<JsonError>([&] { whole_number(value, "count"); }), "'count' is ")) << value;
  }
  EXPECT_TRUE(contains(message_of<JsonError>([] { whole_number(json(11), "n", 0, 10); }), "'n' is 11, expected"));
}

TEST(Text, KnowsWhatIsNoText) {
  EXPECT_EQ(first_non_text("plain\t\r\n \xc2\xa2 \xe2\x82\xac \xf0\x90\x8d\x88 \xf4\x8f\xbf\xbf"), std::string::npos);
  const std::pair<std::string, std::size_t> cases[] = {{std::string("ab\0c", 4), 2},
                                                       {"a\x1b[2J", 1},
                                                       {"\x7f", 0},
                                                       {"\x80", 0},
                                                       {"a\xc3", 1},
                                                       {"\xc0\xaf", 0},
                                                       {"\xe0\x80\x80", 0},
                                                       {"\xed\xa0\x80", 0},
                                                       {"ok \xf4\x90\x80\x80", 3},
                                                       {"\xf8\x88\x80\x80\x80", 0},
                                                       {"\xe2\x82", 0}};
  for (const auto& [text, position] : cases) EXPECT_EQ(first_non_text(text), position) << excerpt(text);
}

TEST(Text, ExcerptsAreShortAndPrintable) {
  EXPECT_EQ(excerpt("plain"), "plain");
  EXPECT_EQ(excerpt("a\x1b[2J\n"), "a\\x1b[2J\\x0a");
  EXPECT_EQ(excerpt("abcdef", 4), "abcd...");
  EXPECT_LT(excerpt(std::string(1 << 20, '\0'), 100).size(), 110U);
}

}  // namespace
}  // namespace sage
