#include "data/download.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <system_error>

#include "core/error.h"
#include "data/md5.h"

namespace sage {
namespace {

constexpr std::uint64_t largest_file = std::uint64_t{2} << 30;

struct Sink {
  std::FILE* file = nullptr;
  std::uint64_t bytes = 0;
  std::string problem;
};

std::size_t write_piece(char* bytes, std::size_t size, std::size_t count, void* user) {
  auto& sink = *static_cast<Sink*>(user);
  const std::size_t length = size * count;
  sink.bytes += length;
  if (sink.bytes > largest_file) {
    sink.problem = fmt::format("more than {} bytes", largest_file);
  } else if (std::fwrite(bytes, 1, length, sink.file) < length) {
    sink.problem = fmt::format("cannot be written: {}", std::strerror(errno));
  }
  return sink.problem.empty() ? length : 0;  // anything but `length` ends the transfer
}

struct Outcome {
  bool done = false;
  bool cannot_continue = false;  // the part is of no use to this server
  std::string reason;
};

/// One transfer that continues `part` where it ends.
Outcome transfer(const std::string& url, const std::filesystem::path& part) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  std::error_code missing;
  const std::uintmax_t have = std::filesystem::file_size(part, missing);
  const auto begin = static_cast<curl_off_t>(missing ? 0 : have);

  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(part.c_str(), "ab"), &std::fclose);
  if (!file) throw EnvironmentError(fmt::format("{}: cannot be written: {}", part.string(), std::strerror(errno)));
  Sink sink{file.get(), static_cast<std::uint64_t>(begin), {}};
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), &curl_easy_cleanup);
  require(curl != nullptr, "libcurl could not be started");
  std::array<char, CURL_ERROR_SIZE> reason{};
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https,file");
  curl_easy_setopt(curl.get(), CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_MAXREDIRS, 5L);
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, 20L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 100L);  // bytes a second, over ...
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, 60L);    // ... this many seconds: given up
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, reason.data());
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &write_piece);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &sink);
  if (begin > 0) curl_easy_setopt(curl.get(), CURLOPT_RESUME_FROM_LARGE, begin);
  const CURLcode status = curl_easy_perform(curl.get());
  long http_status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &http_status);

  Outcome outcome;
  outcome.done = status == CURLE_OK && std::fflush(file.get()) == 0;
  outcome.cannot_continue = begin > 0 && (status == CURLE_RANGE_ERROR || status == CURLE_BAD_DOWNLOAD_RESUME ||
                                          (status == CURLE_HTTP_RETURNED_ERROR && http_status == 416));
  if (!outcome.done) {
    outcome.reason = !sink.problem.empty() ? sink.problem
                     : reason[0] != '\0'   ? std::string(reason.data())
                     : status != CURLE_OK  ? std::string(curl_easy_strerror(status))
                                           : fmt::format("cannot be written: {}", std::strerror(errno));
  }
  return outcome;
}

}  // namespace

void download_file(const std::string& url, const std::filesystem::path& target, const std::string& md5) {
  const std::filesystem::path part = target.string() + ".part";
  std::error_code ignored;
  bool continued = std::filesystem::exists(part, ignored);
  // A part that is whole already (the last run ended between transfer and rename) needs no server.
  if (continued && !md5.empty() && md5_of_file(part) == md5) {
    std::filesystem::rename(part, target);
    return;
  }
  for (;;) {
    const Outcome outcome = transfer(url, part);
    if (outcome.cannot_continue) {
      std::filesystem::remove(part);
      continued = false;
      continue;
    }
    if (!outcome.done) {
      if (std::filesystem::exists(part, ignored) && std::filesystem::file_size(part, ignored) == 0) {
        std::filesystem::remove(part, ignored);
      }
      throw DataError(fmt::format("{}: {}", url, outcome.reason));
    }
    const std::string found = md5.empty() ? std::string() : md5_of_file(part);
    if (found == md5) break;
    std::filesystem::remove(part);
    if (!continued) throw DataError(fmt::format("{}: wrong checksum: MD5 {}, expected {}", url, found, md5));
    continued = false;
  }
  std::filesystem::rename(part, target);
}

}  // namespace sage
