// Unpacking of the archives that data sets are published in.
#pragma once
#include <filesystem>

namespace sage {

/// Unpacks a tar.gz archive (ustar: plain files and folders only) into `folder`, which should be empty. Throws
/// DataError naming archive and entry for anything else that it holds: absolute paths, `..`, links, devices, a damaged
/// header, a file named twice or that is a folder too, names with control characters or more than 16 levels, a cut
/// archive, more than 10,000 entries or 4 GiB, more than 1 MiB after the end. What was unpacked before stays there.
void unpack_tar_gz(const std::filesystem::path& archive, const std::filesystem::path& folder);

}  // namespace sage
