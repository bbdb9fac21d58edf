// `sage data fetch`: the official files of a data set, checked.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace sage {

struct OfficialFile {
  std::string name;
  std::string md5;  ///< of the file as published; empty: not known
};

/// What is published of a data set and where.
struct OfficialSource {
  std::string base_url;  ///< empty: there is no server, a base URL must be given
  std::vector<OfficialFile> files;
  bool archive = false;  ///< the only file is a tar.gz that holds the folder
};

/// Throws ConfigError for an unknown name.
OfficialSource official_source(std::string_view name);

/// Brings data set `name` into `folder` / its own folder (`cifar-10-batches-bin`, `fashion-mnist`, ...) and returns
/// that. `base_url` replaces the official server: a mirror, or `file:///...`; empty: official. Files that are there
/// with the right checksum are left alone, broken-off transfers are continued, archives are unpacked aside and renamed,
/// so that the folder is whole or not there. Throws DataError that says what to put where if a file cannot be had. Call
/// it on one rank only.
std::filesystem::path fetch_dataset(std::string_view name, const std::filesystem::path& folder,
                                    const std::string& base_url);
/// The same for a source other than the official one.
std::filesystem::path fetch_dataset(std::string_view name, const std::filesystem::path& folder,
                                    const std::string& base_url, const OfficialSource& source);

/// Written beside files unpacked from a checked archive, in the form of md5sum(1): verify_dataset compares with it.
inline constexpr const char* checksum_file_name = "md5sums.txt";

}  // namespace sage
