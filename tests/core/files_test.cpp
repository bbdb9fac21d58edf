#include "core/files.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <csignal>

#include "core/error.h"

namespace sage {
namespace {

class Files : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / fmt::format("sage_files_{}", ::getpid());
    make_folder(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::size_t file_count() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  std::filesystem::path folder_;
};

TEST_F(Files, WritesWholeAndReplaces) {
  const auto path = folder_ / "a";
  write_file(path, "old");
  const std::string large(1 << 20, 'x');
  write_file(path, [&](const AppendBytes& append) {
    append("head", 4);
    append(large.data(), large.size());
    append("tail", 4);
  });
  EXPECT_EQ(read_file(path), "head" + large + "tail");
  EXPECT_EQ(file_count(), 1U);
}

TEST_F(Files, AWriterThatThrowsLeavesTheOldFile) {
  const auto path = folder_ / "a";
  write_file(path, "old");
  EXPECT_THROW(write_file(path,
                          [](const AppendBytes& append) {
                            append("new", 3);
                            throw std::runtime_error("in the middle");
                          }),
               std::runtime_error);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(file_count(), 1U);
}

TEST_F(Files, AFullDiskLeavesTheOldFileAndSaysWhy) {
  const auto path = folder_ / "a";
  write_file(path, "old");
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    write_file(path, std::string(1 << 20, 'x'));
  } catch (const EnvironmentError& error) {
    message = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("cannot write (File too large)"), std::string::npos) << message;
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(file_count(), 1U);
}

TEST_F(Files, MissingFolderAndTooLargeFileAreErrors) {
  EXPECT_THROW(write_file(folder_ / "no" / "a", "x"), EnvironmentError);
  EXPECT_THROW(read_file(folder_ / "no"), EnvironmentError);
  write_file(folder_ / "a", "12345");
  EXPECT_THROW(read_file(folder_ / "a", 4), EnvironmentError);
  write_file(folder_ / "file", "");
  EXPECT_THROW(make_folder(folder_ / "file" / "below"), EnvironmentError);
}

}  // namespace
}  // namespace sage
