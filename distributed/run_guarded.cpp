#include "distributed/run_guarded.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <new>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "distributed/communicator.h"

namespace sage {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto peer_deadline = 30s;    // how long a rank waits for the failed peer that must speak
constexpr auto aborted_by_peer = 5s;   // for the end that another rank has announced
constexpr auto farewell_time = 300ms;  // for messages to leave before MPI_Abort

struct Outcome {
  int status = 0;
  std::string message;  // empty: nothing to print
  bool peer_failed = false;
};

std::string with_place(const std::string& message, const std::source_location& where) {
  return fmt::format("{} (thrown at {}:{})", message, where.file_name(), where.line());
}

Outcome run(const std::function<int()>& action) {
  constexpr int internal = static_cast<int>(ExitStatus::internal);
  try {
    return {action(), "", false};
  } catch (const Error& error) {
    const bool defect = error.status() == ExitStatus::internal;
    return {
        static_cast<int>(error.status()),
        defect ? "internal error: " + with_place(error.what(), error.where()) : std::string("error: ") + error.what(),
        false};
  } catch (const PeerFailed& peer) {
    return {std::max(1, peer.status()), "", true};
  } catch (const std::bad_alloc&) {
    return {static_cast<int>(ExitStatus::environment), "error: out of memory", false};
  } catch (const c10::OutOfMemoryError& error) {
    return {static_cast<int>(ExitStatus::environment),
            fmt::format("error: out of GPU memory: {}", error.what_without_backtrace()), false};
  } catch (const c10::DistError& error) {
    return {static_cast<int>(ExitStatus::communication), fmt::format("error: {}", error.what_without_backtrace()),
            false};
  } catch (const c10::Error& error) {
    return {internal, fmt::format("internal error in LibTorch: {}", error.what_without_backtrace()), false};
  } catch (const std::exception& error) {
    return {internal, fmt::format("internal error: {}", error.what()), false};
  } catch (...) {
    return {internal, "internal error: an exception of unknown type", false};
  }
}

void print(const Runtime& runtime, const std::string& message) {
  const std::string line = runtime.size() > 1 ? fmt::format("sage: [rank {}] {}\n", runtime.rank(), message)
                                              : fmt::format("sage: {}\n", message);
  std::fflush(stdout);
  std::fwrite(line.data(), 1, line.size(), stderr);  // one write, so that lines of ranks do not mix
  std::fflush(stderr);
  log::record(message);
}

/// What each rank says at its end.
struct Farewell {
  std::int64_t status = 0;
  std::int64_t message = 0;    // a hash of it; 0 for none
  std::int64_t abandoned = 0;  // 1: transfers are still under way, MPI cannot be ended in order
};
static_assert(sizeof(Farewell) == 3 * sizeof(std::int64_t));

std::int64_t hash_of(const std::string& message) {
  return message.empty() ? 0 : static_cast<std::int64_t>(std::hash<std::string_view>{}(message) | 1U);
}

/// ALL ranks that come to their end. Returns false if some did not within `patience`, or if `hopeless` says that they
/// never will.
bool gather_farewells(Runtime& runtime, const Farewell& mine, std::vector<Farewell>& all, Clock::duration patience,
                      const std::function<bool()>& hopeless) {
  // Static: MPI may write here after this function has given up.
  static Farewell sent;
  static std::vector<Farewell> received;
  sent = mine;
  received.assign(static_cast<std::size_t>(runtime.size()), {});
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Iallgather(&sent, 3, MPI_INT64_T, received.data(), 3, MPI_INT64_T, runtime.farewell(), &request) !=
      MPI_SUCCESS) {
    return false;
  }
  const auto end = Clock::now() + patience;
  for (;;) {
    int done = 0;
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done) break;
    if (Clock::now() > end || hopeless()) return false;
    std::this_thread::sleep_for(1ms);
  }
  all = received;
  return true;
}

}  // namespace

int run_guarded(Runtime& runtime, const std::function<int()>& action) {
  const Outcome outcome = run(action);
  if (runtime.size() == 1) {
    if (!outcome.message.empty()) print(runtime, outcome.message);
    return outcome.status;
  }

  const auto rank = static_cast<std::size_t>(runtime.rank());
  Clock::duration patience = runtime.deadline();  // of a rank that is done, for the others
  if (outcome.peer_failed) patience = peer_deadline;
  if (!outcome.message.empty()) patience = 300ms + 50ms * std::min<std::size_t>(rank, 20);

  Watchdog& watchdog = *runtime.watchdog();
  watchdog.leave();
  const bool is_done = outcome.message.empty() && !outcome.peer_failed;
  std::string waits_for_us;
  const Farewell mine{outcome.status, hash_of(outcome.message), runtime.abandoned()->load() ? 1 : 0};
  std::vector<Farewell> all;
  if (!gather_farewells(runtime, mine, all, patience, [&] {
        if (is_done) waits_for_us = watchdog.waits_for_this_rank();
        return !waits_for_us.empty() || watchdog.abort_is_announced();
      })) {
    const int status = outcome.status != 0 ? outcome.status : static_cast<int>(ExitStatus::communication);
    if (watchdog.abort_is_announced()) {
      log::record("ended because of an error of another rank, which its own message on standard error names");
      std::this_thread::sleep_for(aborted_by_peer);
      runtime.abort_job(status);
    }
    // Others work on, or wait for this rank. Whoever gets here first speaks, and ends them.
    print(runtime, !outcome.message.empty() ? outcome.message
                   : outcome.peer_failed    ? "error: another rank failed and did not end in time"
                   : waits_for_us.empty()
                       ? "error: this rank is done, but others did not end in time"
                       : fmt::format("error: this rank has left the job (its part ended with status {}), but {}",
                                     outcome.status, waits_for_us));
    watchdog.announce_abort();
    runtime.abort_job(status);
  }

  bool speaks = mine.message != 0;
  for (std::size_t r = 0; r < rank; ++r) speaks = speaks && all[r].message != mine.message;
  if (speaks) print(runtime, outcome.message);
  if (outcome.peer_failed) log::record("ended because of an error of another rank, which printed it on standard error");

  int status = outcome.status;
  bool abandoned = false;
  for (const Farewell& farewell : all) {
    if (status == 0) status = static_cast<int>(farewell.status);
    abandoned |= farewell.abandoned != 0;
  }
  if (abandoned) {
    std::this_thread::sleep_for(farewell_time);
    runtime.watchdog()->announce_abort();
    runtime.abort_job(status != 0 ? status : static_cast<int>(ExitStatus::communication));
  }
  return status;
}

}  // namespace sage
