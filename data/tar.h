// Unpacking of the archives that data sets are published in.
#pragma once
#include <filesystem>

namespace sage {

/// Unpacks a tar.gz archive (ustar: plain files and folders only) into `folder`, which should be empty. Throws
/// DataError naming archive and entry for anything else that it holds: absolute paths, `..`, links, devices, a damaged
/// header, a file named twice, a cut archive, more than 10,000 entries or 4 GiB. What was unpacked before stays there.
void unpack_tar_gz(const std::filesystem::path& archive, const std::filesystem::path& folder);

}  // namespace sage
