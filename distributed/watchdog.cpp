#include "distributed/watchdog.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <list>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "core/whereabouts.h"
#include "distributed/signals.h"

namespace sage {
namespace {

using namespace std::chrono_literals;
using Clock = Watchdog::Clock;

constexpr auto poll_interval = 100ms, farewell_poll_interval = 10ms;
constexpr Clock::duration first_question = 1500ms;  // a collective that takes longer is asked about
constexpr Clock::duration last_question = 400ms;    // so long before the deadline the others are asked once more
constexpr Clock::duration farewell_question = 1s;
constexpr Clock::duration silence = 300ms;           // a rank that has not answered by then is stopped or gone
constexpr auto hearing_time = poll_interval + 20ms;  // by then all ranks have heard
constexpr int question_tag = 1, answer_tag = 2, abort_tag = 3;
constexpr std::size_t channels_kept = 16, ranks_named = 4;

template <std::size_t size>
void store(std::array<char, size>& to, std::string_view text) {
  to.fill('\0');
  text.copy(to.data(), size - 1);
}

using Description = std::array<char, 64>;  // of a collective, filled up with zeros

/// How far a rank is in one channel. Travels as bytes: all nodes of a job have one architecture.
struct ChannelReport {
  std::int64_t channel = -1;
  std::int64_t submitted = 0;  ///< number of the newest collective that this rank takes part in
  std::int64_t waiting = 0;    ///< number of the one that it waits in; 0: none
  Description newest{};        ///< description of the newest
  Description waiting_in{};    ///< description of the one that it waits in
};

/// What a rank answers.
struct Report {
  std::int64_t has_left = 0;
  std::array<char, 128> place{};  ///< whereabouts
  std::array<ChannelReport, channels_kept> channels{};
};
static_assert(std::is_trivially_copyable_v<Report> && sizeof(Report) < 4096, "one small message");

struct Peer {
  bool asked = false;  ///< and has not answered since
  bool known = false;  ///< has ever answered
  Clock::time_point asked_at;
  Report report;
};

struct Wait {
  Clock::time_point start, next_question;
  Clock::duration deadline{};
};

struct Message {
  MPI_Request request = MPI_REQUEST_NULL;
  Report report;
};

std::string numbered(const Description& description, std::int64_t number) {
  const std::string_view text = description.data();
  const auto name = text.substr(0, text.find(" ("));
  return fmt::format("{} #{}{}", name, number, text.substr(name.size()));
}

std::string at_place(const Report& report) {
  return report.place[0] == '\0' ? "" : fmt::format(" at {}", report.place.data());
}

}  // namespace

struct Watchdog::State {
  mutable std::mutex mutex;
  Report mine;  ///< without its place, which is written when it is sent
  std::array<Wait, channels_kept> waits;
  std::vector<Peer> peers;
  std::int64_t channels = 0;
  std::atomic<bool> heard{false};  ///< of any other rank: only then there is something to judge
  std::atomic<bool> aborted{false};
  Clock::time_point next_farewell_question;
  bool stops = false;
  std::condition_variable wake;

  // Of the thread:
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  std::list<Message> sending;
  std::thread thread;

  static std::size_t slot_of(std::int64_t channel) { return static_cast<std::size_t>(channel) % channels_kept; }

  /// The report on a channel of this rank; null if it is no longer kept. Under the mutex.
  ChannelReport* find(std::int64_t channel) {
    ChannelReport& report = mine.channels[slot_of(channel)];
    return report.channel == channel ? &report : nullptr;
  }

  void run() {
    block_signals();
    std::unique_lock lock(mutex);
    while (!stops) {
      const bool asks = time_to_ask();
      lock.unlock();
      try {
        answer();
        if (asks) ask();
        hear();
        std::erase_if(sending, [](Message& message) {
          int sent = 0;
          check_mpi(MPI_Test(&message.request, &sent, MPI_STATUS_IGNORE), "MPI_Test");
          return sent != 0;
        });
      } catch (const Error&) {
        return;  // messages say less then; collectives have their deadlines still
      }
      lock.lock();
      wake.wait_for(lock, mine.has_left != 0 ? farewell_poll_interval : poll_interval, [this] { return stops; });
    }
  }

  /// Under the mutex.
  bool time_to_ask() {
    const auto now = Clock::now();
    bool asks = false;
    for (std::size_t slot = 0; slot < channels_kept; ++slot) {
      Wait& wait = waits[slot];
      if (mine.channels[slot].waiting == 0 || now < wait.next_question) continue;
      asks = true;
      // Ever more rarely, and once more just before the deadline.
      const auto last = wait.start + wait.deadline - last_question;
      wait.next_question = now + (now - wait.start);
      if (now < last) wait.next_question = std::min(wait.next_question, last);
    }
    if (mine.has_left != 0 && now >= next_farewell_question) {
      asks = true;
      next_farewell_question = now + farewell_question;
    }
    return asks;
  }

  void answer() {
    for (;;) {
      int there = 0;
      MPI_Status status;
      check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, question_tag, comm, &there, &status), "MPI_Iprobe");
      if (there == 0) return;
      check_mpi(MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, question_tag, comm, MPI_STATUS_IGNORE), "MPI_Recv");
      Message& message = sending.emplace_back();
      {
        const std::lock_guard lock(mutex);
        message.report = mine;
      }
      whereabouts::write_to(message.report.place.data(), message.report.place.size());
      check_mpi(
          MPI_Isend(&message.report, sizeof(Report), MPI_BYTE, status.MPI_SOURCE, answer_tag, comm, &message.request),
          "MPI_Isend");
    }
  }

  void ask() {
    for (int other = 0; other < size; ++other) {
      if (other == rank) continue;
      {
        const std::lock_guard lock(mutex);
        Peer& peer = peers[static_cast<std::size_t>(other)];
        if (peer.asked) continue;
        peer.asked = true;
        peer.asked_at = Clock::now();
      }
      check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, other, question_tag, comm, &sending.emplace_back().request),
                "MPI_Isend");
    }
  }

  void hear() {
    int aborts = 0;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, abort_tag, comm, &aborts, MPI_STATUS_IGNORE), "MPI_Iprobe");
    if (aborts != 0 && !aborted.exchange(true)) end_at_stop_signals();
    for (;;) {
      int there = 0;
      MPI_Status status;
      check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, answer_tag, comm, &there, &status), "MPI_Iprobe");
      if (there == 0) return;
      Report report;
      check_mpi(MPI_Recv(&report, sizeof(Report), MPI_BYTE, status.MPI_SOURCE, answer_tag, comm, MPI_STATUS_IGNORE),
                "MPI_Recv");
      const std::lock_guard lock(mutex);
      Peer& peer = peers[static_cast<std::size_t>(status.MPI_SOURCE)];
      peer.asked = false;
      peer.known = true;
      peer.report = report;
      heard = true;
    }
  }
};

Watchdog::Watchdog(MPI_Comm world) : state_(std::make_unique<State>()) {
  State& state = *state_;
  check_mpi(MPI_Comm_rank(world, &state.rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(world, &state.size), "MPI_Comm_size");
  state.peers.resize(static_cast<std::size_t>(state.size));
  if (state.size == 1) return;
  // Never freed but by MPI's end: a question may still be on its way when this rank is done.
  check_mpi(MPI_Comm_dup(world, &state.comm), "MPI_Comm_dup");
  MPI_Comm_set_errhandler(state.comm, MPI_ERRORS_RETURN);
  state.thread = std::thread([&state] { state.run(); });
}

Watchdog::~Watchdog() { stop(); }

void Watchdog::stop() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stops = true;
  }
  state_->wake.notify_one();
  if (!state_->thread.joinable()) return;
  state_->thread.join();
  int ended = 0;
  MPI_Finalized(&ended);
  if (ended != 0) return;
  // Small messages are on their way already; one that is not finds nobody any more, and its memory is left to it.
  for (Message& message : state_->sending) {
    int sent = 0;
    MPI_Test(&message.request, &sent, MPI_STATUS_IGNORE);
    if (sent != 0) continue;
    // cppcheck-suppress leakReturnValNotUsed ; on purpose: MPI may read it to the very end
    (void)new std::list<Message>(std::move(state_->sending));
    return;
  }
}

std::int64_t Watchdog::open_channel() {
  const std::lock_guard lock(state_->mutex);
  const std::int64_t channel = state_->channels++;
  ChannelReport& report = state_->mine.channels[State::slot_of(channel)];
  report = {};
  report.channel = channel;
  return channel;
}

std::int64_t Watchdog::submitted(std::int64_t channel, std::string_view description) {
  const std::lock_guard lock(state_->mutex);
  ChannelReport* report = state_->find(channel);
  if (report == nullptr) return 0;
  store(report->newest, description);
  return ++report->submitted;
}

void Watchdog::waits(std::int64_t channel, std::int64_t number, std::string_view description,
                     Clock::duration deadline) {
  const std::lock_guard lock(state_->mutex);
  ChannelReport* report = state_->find(channel);
  if (report == nullptr) return;
  report->waiting = number;
  store(report->waiting_in, description);
  const auto now = Clock::now();
  state_->waits[State::slot_of(channel)] = {now, now + std::min(first_question, deadline / 2), deadline};
}

void Watchdog::done(std::int64_t channel) {
  const std::lock_guard lock(state_->mutex);
  if (ChannelReport* report = state_->find(channel)) report->waiting = 0;
}

std::string Watchdog::verdict(std::int64_t channel) const {
  if (!state_->heard.load(std::memory_order_relaxed)) return "";
  const std::lock_guard lock(state_->mutex);
  const ChannelReport* mine = state_->find(channel);
  if (mine == nullptr || mine->waiting == 0) return "";
  // The lowest rank that is known to have come to the collective of this number, and the lowest that has come to
  // another one in its place (and may even be through: MPI does not look whether collectives fit): the same text on all
  // ranks.
  const std::size_t slot = State::slot_of(channel);
  const auto report_of = [&](int rank) -> const Report& {
    return rank == state_->rank ? state_->mine : state_->peers[static_cast<std::size_t>(rank)].report;
  };
  const auto description_of = [&](int rank) -> const Description* {
    const ChannelReport& theirs = report_of(rank).channels[slot];
    if (theirs.channel != channel) return nullptr;
    if (theirs.waiting == mine->waiting) return &theirs.waiting_in;
    return theirs.submitted == mine->waiting ? &theirs.newest : nullptr;
  };
  const auto tell = [&](int rank) {
    const std::string place = rank == state_->rank ? whereabouts::text() : report_of(rank).place.data();
    return fmt::format("rank {} to {}{}{}", rank, numbered(*description_of(rank), mine->waiting),
                       place.empty() ? "" : " at ", place);
  };
  int first = -1;
  for (int rank = 0; rank < state_->size; ++rank) {
    const Description* theirs = description_of(rank);
    if (theirs == nullptr) continue;
    if (first < 0) {
      first = rank;
    } else if (*theirs != *description_of(first)) {
      return fmt::format("ranks have come to different collectives: {}, {}; one left one out", tell(first), tell(rank));
    }
  }
  return "";
}

std::string Watchdog::missed_deadline(std::int64_t channel, Clock::duration deadline) const {
  const std::string place = whereabouts::text();
  const std::lock_guard lock(state_->mutex);
  const ChannelReport* mine = state_->find(channel);
  const std::string collective =
      mine == nullptr || mine->waiting == 0 ? "a collective" : numbered(mine->waiting_in, mine->waiting);
  std::string text =
      fmt::format("{}{}{} was not completed by all {} ranks within {:g} s", place, place.empty() ? "" : ": ",
                  collective, state_->size, std::chrono::duration<double>(deadline).count());
  struct Missing {
    std::size_t rank;
    bool silent, waits;
  };
  std::vector<Missing> missing;
  for (std::size_t other = 0; mine != nullptr && other < state_->peers.size(); ++other) {
    const Peer& peer = state_->peers[other];
    const ChannelReport& theirs = peer.report.channels[State::slot_of(channel)];
    const bool silent = peer.asked && Clock::now() - peer.asked_at > silence;
    const bool behind = peer.known && theirs.channel == channel && theirs.submitted < mine->waiting;
    if (silent || behind) missing.push_back({other, silent, theirs.waiting > 0});
  }
  // Those that wait in an earlier collective do so because of the others.
  std::stable_sort(missing.begin(), missing.end(), [](const Missing& a, const Missing& b) {
    return a.silent != b.silent ? a.silent : a.waits < b.waits;
  });
  const std::size_t named = std::min(missing.size(), ranks_named);
  for (std::size_t i = 0; i < named; ++i) {
    const Peer& peer = state_->peers[missing[i].rank];
    if (missing[i].silent) {
      text += fmt::format("; rank {} does not answer: it is stopped, or gone, or its node is", missing[i].rank);
      if (peer.known && peer.report.place[0] != '\0') text += fmt::format(" (last seen{})", at_place(peer.report));
      continue;
    }
    text += fmt::format("; rank {} has not come to it", missing[i].rank);
    if (peer.report.has_left != 0) {
      text += ": it has left the job";
    } else if (peer.report.place[0] != '\0') {
      text += fmt::format(": it is{}", at_place(peer.report));
    }
    const ChannelReport& theirs = peer.report.channels[State::slot_of(channel)];
    if (theirs.submitted > 0) text += fmt::format(", after {}", numbered(theirs.newest, theirs.submitted));
  }
  if (missing.size() > named) text += fmt::format("; and {} more ranks", missing.size() - named);
  return text + "; distributed.deadline_seconds is the limit";
}

void Watchdog::announce_abort() {
  stop();
  if (state_->size == 1) return;
  std::vector<MPI_Request> requests(static_cast<std::size_t>(state_->size), MPI_REQUEST_NULL);
  for (int other = 0; other < state_->size; ++other) {
    if (other == state_->rank) continue;
    MPI_Isend(nullptr, 0, MPI_BYTE, other, abort_tag, state_->comm, &requests[static_cast<std::size_t>(other)]);
  }
  const auto end = Clock::now() + hearing_time;
  while (Clock::now() < end) {
    int sent = 0;
    MPI_Testall(state_->size, requests.data(), &sent, MPI_STATUSES_IGNORE);
    std::this_thread::sleep_for(10ms);
  }
}

bool Watchdog::abort_is_announced() const { return state_->aborted; }

void Watchdog::leave() {
  const std::lock_guard lock(state_->mutex);
  state_->mine.has_left = 1;
  state_->next_farewell_question = Clock::now() + farewell_question;
  state_->wake.notify_one();
}

std::string Watchdog::waits_for_this_rank() const {
  const std::lock_guard lock(state_->mutex);
  for (std::size_t other = 0; other < state_->peers.size(); ++other) {
    const Peer& peer = state_->peers[other];
    if (!peer.known) continue;
    for (std::size_t slot = 0; slot < channels_kept; ++slot) {
      const ChannelReport &mine = state_->mine.channels[slot], &theirs = peer.report.channels[slot];
      if (theirs.channel < 0 || theirs.channel < mine.channel) continue;
      // All ranks take part in the same collectives: the other rank is in one that this rank has never come to.
      const std::int64_t came_to = theirs.channel == mine.channel ? mine.submitted : -1;
      if (theirs.submitted <= came_to) continue;
      std::string collective = "the making of a communicator";
      if (theirs.waiting > std::max<std::int64_t>(came_to, 0)) {
        collective = numbered(theirs.waiting_in, theirs.waiting);
      } else if (theirs.submitted > 0) {
        collective = numbered(theirs.newest, theirs.submitted);
      }
      return fmt::format("rank {} waits for it in {}{}", other, collective, at_place(peer.report));
    }
  }
  return "";
}

}  // namespace sage
