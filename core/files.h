// Files that are either whole or not there: written aside, synced, renamed, and the folder synced.
#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace sage {

/// Writes `content` to `path` so that a reader (or a crash at any moment) sees the old file or the new one, never a
/// part. Throws EnvironmentError naming the path and the system's reason (full disk, no permission).
void write_file(const std::filesystem::path& path, std::string_view content);

/// The same for content produced in pieces: `write` is called once with a function that appends bytes.
using AppendBytes = std::function<void(const void* bytes, std::size_t count)>;
void write_file(const std::filesystem::path& path, const std::function<void(const AppendBytes&)>& write);

/// Whole content of a file of at most `limit` bytes. Throws EnvironmentError if it cannot be read or is larger.
std::string read_file(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 30);

/// Makes the folder and its parents. Throws EnvironmentError with the system's reason.
void make_folder(const std::filesystem::path& path);

}  // namespace sage
