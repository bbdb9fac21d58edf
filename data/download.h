// One file over libcurl.
#pragma once
#include <filesystem>
#include <string>

namespace sage {

/// Fetches `url` (http, https or file) into `target`. Bytes go to `target` + ".part", which is kept when the transfer
/// breaks off and continued by the next call; the file is renamed once its MD5 equals `md5` (empty: not checked).
/// A part that cannot be continued, or that turns out wrong once whole, is fetched again from its beginning, once.
/// Throws DataError with the URL and the reason.
void download_file(const std::string& url, const std::filesystem::path& target, const std::string& md5);

}  // namespace sage
