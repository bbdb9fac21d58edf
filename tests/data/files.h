// Small data files for the tests of data/.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace sage::test {

/// A folder that is gone at the end of the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static std::atomic<int> number = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("sage_data_test_" + std::to_string(getpid()) + "_" + std::to_string(number++));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Sets an environment variable (null: unsets it) for the time of a test.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, had_ = true;
    value != nullptr ? setenv(name, value, 1) : unsetenv(name);
  }
  ~ScopedVariable() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

inline void write_gzip(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  const gzFile file = gzopen(path.c_str(), "wb6");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

inline std::string big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

/// Pixel p of image i, different for neighbours in every direction.
inline std::uint8_t pixel(std::int64_t image, std::int64_t p) {
  return static_cast<std::uint8_t>((image * 31 + p * 7 + p / 28) % 256);
}

inline std::string idx_images(std::int64_t count, std::uint32_t side = 28) {
  std::string bytes =
      big_endian(0x803) + big_endian(static_cast<std::uint32_t>(count)) + big_endian(side) + big_endian(side);
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t p = 0; p < side * side; ++p) bytes.push_back(static_cast<char>(pixel(i, p)));
  }
  return bytes;
}

inline std::string idx_labels(std::int64_t count) {
  std::string bytes = big_endian(0x801) + big_endian(static_cast<std::uint32_t>(count));
  for (std::int64_t i = 0; i < count; ++i) bytes.push_back(static_cast<char>(i % 10));
  return bytes;
}

/// `label_bytes` 1: CIFAR-10; 2: CIFAR-100 (coarse, fine).
inline std::string cifar_records(std::int64_t count, int label_bytes) {
  std::string bytes;
  for (std::int64_t i = 0; i < count; ++i) {
    if (label_bytes == 2) bytes.push_back(static_cast<char>(i % 20));
    bytes.push_back(static_cast<char>(label_bytes == 2 ? i % 100 : i % 10));
    for (std::int64_t p = 0; p < 3072; ++p) bytes.push_back(static_cast<char>(pixel(i, p)));
  }
  return bytes;
}

inline std::string digits_rows(std::int64_t count) {
  std::string text;
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t p = 0; p < 64; ++p) text += std::to_string((i + p) % 17) + ",";
    text += std::to_string(i % 10) + "\n";
  }
  return text;
}

/// Fails unless `action` throws `Expected` with a message that holds every one of `parts`.
template <class Expected, class Action>
void expect_error(Action action, std::initializer_list<const char*> parts) {
  try {
    action();
    FAIL() << "nothing was thrown";
  } catch (const Expected& error) {
    for (const char* part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << "`" << part << "` in: " << error.what();
    }
  }
}

}  // namespace sage::test
