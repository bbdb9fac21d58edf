// Every verb of the communicator against its definition, for all dtypes, odd and zero sizes, and cut into small pieces.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/mpi.h"

namespace sage {
namespace {

constexpr at::ScalarType all_types[] = {at::kFloat, at::kDouble, at::kInt, at::kLong, at::kByte, at::kBFloat16};
constexpr std::int64_t all_sizes[] = {0, 1, 2, 3, 7, 64, 1001, 20011};

/// Small whole numbers that differ by rank and position: their sums are exact in every dtype.
at::Tensor values(int rank, std::int64_t count, at::ScalarType type) {
  return (at::arange(count, at::kLong) * 3 + rank * 5).remainder(11).to(type);
}

/// The parameter is the largest piece of a transfer, in bytes.
class CommunicatorVerbs : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    CommunicatorOptions options;
    options.chunk_bytes = GetParam();
    options.deadline = std::chrono::seconds(60);
    communicator_ = make_communicator(runtime(), at::Device(at::kCPU), options);
  }
  Communicator& comm() { return *communicator_; }

  /// Cutting 20,011 elements into single bytes takes long and shows nothing more.
  bool too_long(std::int64_t size) const { return GetParam() < 64 && size > 1001; }

  std::unique_ptr<Communicator> communicator_;
};

TEST_P(CommunicatorVerbs, KnowsTheWorld) {
  EXPECT_EQ(comm().rank(), runtime().rank());
  EXPECT_EQ(comm().size(), runtime().size());
  EXPECT_TRUE(comm().device().is_cpu());
}

TEST_P(CommunicatorVerbs, AllReduceSumAndMax) {
  for (const auto type : all_types) {
    for (const auto size : all_sizes) {
      if (too_long(size)) continue;
      at::Tensor sum = at::zeros({size}, at::kLong), highest = at::zeros({size}, at::kLong);
      for (int r = 0; r < comm().size(); ++r) {
        sum += values(r, size, at::kLong);
        highest = at::maximum(highest, values(r, size, at::kLong));
      }
      at::Tensor mine = values(comm().rank(), size, type);
      comm().all_reduce_sum(mine);
      EXPECT_TRUE(at::equal(mine, sum.to(type))) << at::toString(type) << " x " << size;
      mine = values(comm().rank(), size, type);
      comm().all_reduce_max(mine);
      EXPECT_TRUE(at::equal(mine, highest.to(type))) << at::toString(type) << " x " << size;
    }
  }
}

TEST_P(CommunicatorVerbs, AllReduceGivesTheSameBitsEverywhere) {
  at::Tensor mine = (at::arange(5000, at::kFloat) * 0.37 + comm().rank()).sin() * 1e3;
  comm().all_reduce_sum(mine);
  const at::Tensor all = comm().all_gather_rows(mine.view({1, -1}));
  for (int r = 0; r < comm().size(); ++r) EXPECT_TRUE(at::equal(all[r], mine)) << "rank " << r;
}

TEST_P(CommunicatorVerbs, BroadcastFromEachRank) {
  for (int root = 0; root < comm().size(); ++root) {
    for (const auto type : all_types) {
      for (const auto size : all_sizes) {
        if (too_long(size)) continue;
        at::Tensor mine = values(comm().rank(), size, type);
        comm().broadcast(mine, root);
        EXPECT_TRUE(at::equal(mine, values(root, size, type))) << at::toString(type) << " x " << size;
      }
    }
  }
}

TEST_P(CommunicatorVerbs, AllGatherRowsOfUnevenCounts) {
  for (const auto type : all_types) {
    // (rank + shift) % 3 rows: some ranks have none; with shift 0 and one rank nobody has any.
    for (int shift = 0; shift < 3; ++shift) {
      std::vector<at::Tensor> parts;
      for (int r = 0; r < comm().size(); ++r) {
        parts.push_back(values(r, (r + shift) % 3 * 14, type).view({(r + shift) % 3, 2, 7}));
      }
      const at::Tensor all = comm().all_gather_rows(parts[static_cast<std::size_t>(comm().rank())]);
      EXPECT_TRUE(at::equal(all, at::cat(parts))) << at::toString(type) << ", shift " << shift;
    }
  }
}

TEST_P(CommunicatorVerbs, ExchangeInPairsWhileOthersTakePart) {
  // Ranks 2k and 2k+1 are partners and send different sizes each way; a last rank without a partner gives -1.
  const int rank = comm().rank();
  const int neighbour = rank ^ 1;
  const int partner = neighbour < comm().size() ? neighbour : -1;
  const auto size_from = [](int r) { return std::int64_t{10} + 333 * r; };
  for (const auto type : all_types) {
    at::Tensor receive = at::zeros({partner < 0 ? 0 : size_from(partner)}, type);
    comm().reset_traffic();
    comm().exchange(partner, values(rank, size_from(rank), type), receive);
    if (partner < 0) continue;
    EXPECT_TRUE(at::equal(receive, values(partner, size_from(partner), type))) << at::toString(type);
    EXPECT_EQ(comm().traffic().bytes_sent, size_from(rank) * static_cast<std::int64_t>(receive.element_size()));
    EXPECT_EQ(comm().traffic().calls, 1);
  }
}

TEST_P(CommunicatorVerbs, ExchangeInOneDirectionOnly) {
  // Rank 0 sends to the last rank, which sends nothing; the others take part.
  const int last = comm().size() - 1;
  if (last == 0) return;
  at::Tensor receive;
  if (comm().rank() == last) receive = at::zeros({77}, at::kDouble);
  const at::Tensor send = comm().rank() == 0 ? values(0, 77, at::kDouble) : at::Tensor();
  comm().exchange(comm().rank() == 0 ? last : comm().rank() == last ? 0 : -1, send, receive);
  if (comm().rank() == last) {
    EXPECT_TRUE(at::equal(receive, values(0, 77, at::kDouble)));
  }
}

TEST_P(CommunicatorVerbs, ExchangeAllWithEveryRank) {
  const int rank = comm().rank(), ranks = comm().size();
  // From rank a to rank b: 5 a + b elements, nothing where a + b is divisible by 3.
  const auto size_of = [](int a, int b) { return std::int64_t{(a + b) % 3 == 0 ? 0 : 5 * a + b}; };
  for (const auto type : all_types) {
    std::vector<at::Tensor> to(static_cast<std::size_t>(ranks)), from(to.size());
    std::int64_t sent = 0;
    for (int r = 0; r < ranks; ++r) {
      const auto index = static_cast<std::size_t>(r);
      if (size_of(rank, r) > 0) to[index] = values(rank + 10 * r, size_of(rank, r), type);
      if (size_of(r, rank) > 0) from[index] = at::zeros({size_of(r, rank)}, type);
      if (r != rank) sent += size_of(rank, r) * static_cast<std::int64_t>(at::elementSize(type));
    }
    comm().reset_traffic();
    comm().exchange_all(to, from);
    EXPECT_EQ(comm().traffic().bytes_sent, sent);
    for (int r = 0; r < ranks; ++r) {
      if (size_of(r, rank) == 0) continue;
      EXPECT_TRUE(at::equal(from[static_cast<std::size_t>(r)], values(r + 10 * rank, size_of(r, rank), type)));
    }
  }
}

TEST_P(CommunicatorVerbs, TrafficCountsTensorSizes) {
  comm().reset_traffic();
  at::Tensor tensor = at::zeros({100}, at::kFloat);
  comm().all_reduce_sum(tensor);
  comm().broadcast(tensor, 0);
  comm().barrier();
  EXPECT_EQ(comm().traffic().calls, 3);
  EXPECT_EQ(comm().traffic().bytes_sent, comm().size() == 1 ? 0 : 800);
}

INSTANTIATE_TEST_SUITE_P(ChunkBytes, CommunicatorVerbs, testing::Values(std::int64_t{2} << 20, 1000, 8),
                         [](const auto& instance) { return std::to_string(instance.param); });

TEST(Communicator, GathersStrings) {
  const auto text_of = [](int r) {
    return std::string(static_cast<std::size_t>(r * 3 % 5), static_cast<char>('a' + r));
  };
  const auto texts = world().all_gather_strings(text_of(world().rank()));
  ASSERT_EQ(texts.size(), static_cast<std::size_t>(world().size()));
  for (int r = 0; r < world().size(); ++r) EXPECT_EQ(texts[static_cast<std::size_t>(r)], text_of(r));
}

TEST(Communicator, AllOrNonePassesWhenAllSucceed) {
  int ran = 0;
  EXPECT_NO_THROW(world().all_or_none([&] { ++ran; }));
  EXPECT_EQ(ran, 1);
}

/// What came out of all_or_none on this rank: "", the message of its own error, or "peer <status>".
std::string outcome_of(const std::function<void()>& action) {
  try {
    world().all_or_none(action);
    return "";
  } catch (const PeerFailed& peer) {
    return "peer " + std::to_string(peer.status());
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Communicator, AllOrNoneGivesOneRankTheMessage) {
  for (int culprit = 0; culprit < world().size(); ++culprit) {
    const std::string outcome = outcome_of([&] {
      if (world().rank() == culprit) throw DataError("record 7 is broken");
    });
    EXPECT_EQ(outcome, world().rank() == culprit ? "record 7 is broken" : "peer 3");
  }
}

TEST(Communicator, AllOrNoneLetsTheLowestOfSeveralSpeak) {
  const int first = world().size() - 1 > 1 ? 1 : 0;
  const std::string outcome = outcome_of([&] {
    if (world().rank() >= first) throw CheckpointError("rank " + std::to_string(world().rank()));
  });
  EXPECT_EQ(outcome, world().rank() == first ? "rank " + std::to_string(first) : "peer 4");
}

TEST(Communicator, AllOrNoneMayBeNested) {
  const int culprit = world().size() - 1;
  const std::string outcome = outcome_of([&] {
    world().all_or_none([&] {
      if (world().rank() == culprit) throw DataError("inner");
    });
  });
  EXPECT_EQ(outcome, world().rank() == culprit ? "inner" : "peer 3");
}

TEST(Communicator, RefusesTensorsThatItCannotSend) {
  if (world().size() == 1) return;  // the identity sends nothing
  EXPECT_THROW(world().all_reduce_sum(at::zeros({4, 4}).t().narrow(0, 0, 2)), InternalError);
  EXPECT_THROW(world().all_reduce_sum(at::Tensor()), InternalError);
  EXPECT_THROW(world().broadcast(at::zeros({1}), world().size()), InternalError);
}

TEST(Communicator, AWorldOfOneIsTheIdentity) {
  const auto single = make_single_communicator(at::Device(at::kCPU));
  at::Tensor tensor = values(1, 9, at::kFloat);
  single->all_reduce_sum(tensor);
  single->all_reduce_max(tensor);
  single->broadcast(tensor, 0);
  single->barrier();
  EXPECT_TRUE(at::equal(tensor, values(1, 9, at::kFloat)));
  EXPECT_TRUE(at::equal(single->all_gather_rows(tensor), tensor));
  at::Tensor copy = at::zeros({9}, at::kFloat);
  single->exchange(0, tensor, copy);
  EXPECT_TRUE(at::equal(copy, tensor));
  single->exchange(-1, at::Tensor(), at::Tensor());
  EXPECT_EQ(single->all_gather_strings("text"), std::vector<std::string>{"text"});
  EXPECT_THROW(single->all_or_none([] { throw ConfigError("no"); }), ConfigError);
  EXPECT_EQ(single->traffic().bytes_sent, 0);
}

}  // namespace
}  // namespace sage
