// The kept corpus, valid examples, hostile ones and what fuzzing has found, through the readers of this build.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "core/error.h"
#include "fuzz/targets.h"

namespace sage::fuzz {
namespace {

class Replay : public testing::TestWithParam<Target> {};

TEST_P(Replay, EveryFileIsAcceptedOrRefused) {
  const auto folder = std::filesystem::path(SAGE_FUZZ_CORPUS) / GetParam().name;
  int accepted = 0, refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    const std::string name = entry.path().filename().string();
    bool refusal = false;
    try {
      GetParam().run(bytes);
    } catch (const InternalError& error) {
      ADD_FAILURE() << name << ": internal error: " << error.what();
    } catch (const Error& error) {
      refusal = true;
      EXPECT_LT(std::string(error.what()).size(), 2000U) << name << ": a message is to be read";
    } catch (const std::exception& error) {
      ADD_FAILURE() << name << ": " << error.what();
    }
    ++(refusal ? refused : accepted);
    if (name.starts_with("valid")) {
      EXPECT_FALSE(refusal) << name;
    }
    if (name.starts_with("hostile")) {
      EXPECT_TRUE(refusal) << name;
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

INSTANTIATE_TEST_SUITE_P(Corpus, Replay, testing::ValuesIn(targets),
                         [](const auto& one) { return std::string(one.param.name); });

}  // namespace
}  // namespace sage::fuzz
