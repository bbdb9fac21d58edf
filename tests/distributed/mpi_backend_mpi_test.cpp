// The c10d backend itself: many collectives in flight, futures, sends and receives, the deadline.
#include "distributed/mpi_backend.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

#include "core/error.h"
#include "support/mpi.h"

namespace sage {
namespace {

using namespace std::chrono_literals;

c10::intrusive_ptr<c10d::Backend> make_backend(std::int64_t chunk_bytes = 4096) {
  MpiBackendOptions options;
  options.chunk_bytes = chunk_bytes;
  options.deadline = 60s;
  options.watchdog = runtime().watchdog();
  return make_mpi_backend(runtime().world(), options);
}

TEST(MpiBackend, RunsManyCollectivesInFlight) {
  const auto backend = make_backend();
  const int rank = backend->getRank(), ranks = backend->getSize();
  constexpr int count = 40;
  std::vector<std::vector<at::Tensor>> tensors;
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  for (int i = 0; i < count; ++i) {
    tensors.push_back({at::full({100 + 997 * (i % 7)}, static_cast<double>(rank + i), at::kFloat)});
    if (i % 3 == 2) {
      c10d::BroadcastOptions options;
      options.rootRank = i % ranks;
      works.push_back(backend->broadcast(tensors.back(), options));
    } else {
      works.push_back(backend->allreduce(tensors.back(), c10d::AllreduceOptions()));
    }
  }
  // Waited for in the opposite order: each result is its own.
  for (int i = count - 1; i >= 0; --i) {
    const auto index = static_cast<std::size_t>(i);
    works[index]->wait();
    const double expected = i % 3 == 2 ? i % ranks + i : ranks * i + ranks * (ranks - 1) / 2;
    EXPECT_TRUE(at::equal(tensors[index][0], at::full_like(tensors[index][0], expected))) << "collective " << i;
    EXPECT_TRUE(works[index]->isCompleted());
  }
}

TEST(MpiBackend, ReturnsBeforeTheOthersHaveCome) {
  const auto backend = make_backend();
  const bool late = backend->getRank() == backend->getSize() - 1 && backend->getSize() > 1;
  if (late) std::this_thread::sleep_for(300ms);
  std::vector<at::Tensor> tensors{at::full({1000}, 1.0, at::kFloat)};
  const auto start = std::chrono::steady_clock::now();
  const auto work = backend->allreduce(tensors, c10d::AllreduceOptions());
  const auto submitted = std::chrono::steady_clock::now() - start;
  EXPECT_LT(submitted, 200ms);
  if (backend->getSize() > 1 && !late) {
    EXPECT_FALSE(work->isCompleted());
  }
  work->wait();
  EXPECT_EQ(tensors[0][999].item<float>(), static_cast<float>(backend->getSize()));
}

TEST(MpiBackend, FutureHoldsTheTensorList) {
  const auto backend = make_backend();
  std::vector<at::Tensor> tensors{at::full({3}, 2.0, at::kDouble)};
  const auto future = backend->allreduce(tensors, c10d::AllreduceOptions())->getFuture();
  future->wait();
  const auto list = future->value().toTensorVector();
  ASSERT_EQ(list.size(), 1U);
  EXPECT_TRUE(list[0].is_same(tensors[0]));
  EXPECT_EQ(list[0][0].item<double>(), 2.0 * backend->getSize());
}

TEST(MpiBackend, AveragesAndTakesTheMinimum) {
  const auto backend = make_backend(8);
  const int rank = backend->getRank(), ranks = backend->getSize();
  c10d::AllreduceOptions options;
  options.reduceOp = c10d::ReduceOp::AVG;
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> tensors{at::full({5}, 2.0 * rank, type)};
    backend->allreduce(tensors, options)->wait();
    EXPECT_TRUE(at::equal(tensors[0], at::full({5}, ranks - 1.0, type)));
  }
  options.reduceOp = c10d::ReduceOp::MIN;
  std::vector<at::Tensor> tensors{at::full({5}, rank + 3, at::kInt)};
  backend->allreduce(tensors, options)->wait();
  EXPECT_TRUE(at::equal(tensors[0], at::full({5}, 3, at::kInt)));
}

TEST(MpiBackend, GathersAndTransposes) {
  const auto backend = make_backend(12);
  const int rank = backend->getRank(), ranks = backend->getSize();
  at::Tensor input = at::arange(7, at::kFloat) + 100 * rank, output = at::zeros({ranks, 7});
  backend->_allgather_base(output, input, c10d::AllgatherOptions())->wait();
  std::vector<std::vector<at::Tensor>> lists(1);
  for (int r = 0; r < ranks; ++r) lists[0].push_back(at::zeros({7}));
  std::vector<at::Tensor> inputs{input};
  backend->allgather(lists, inputs, c10d::AllgatherOptions())->wait();
  for (int r = 0; r < ranks; ++r) {
    EXPECT_TRUE(at::equal(output[r], at::arange(7, at::kFloat) + 100 * r));
    EXPECT_TRUE(at::equal(lists[0][static_cast<std::size_t>(r)], output[r]));
  }
  // Rank a sends a + b + 1 rows of the number 10 a + b to rank b.
  std::vector<std::int64_t> to_sizes, from_sizes;
  std::vector<at::Tensor> to, expected;
  for (int r = 0; r < ranks; ++r) {
    to_sizes.push_back(rank + r + 1);
    from_sizes.push_back(rank + r + 1);
    to.push_back(at::full({rank + r + 1, 2}, 10 * rank + r, at::kLong));
    expected.push_back(at::full({rank + r + 1, 2}, 10 * r + rank, at::kLong));
  }
  at::Tensor sent = at::cat(to), received = at::zeros_like(at::cat(expected));
  backend->alltoall_base(received, sent, from_sizes, to_sizes, c10d::AllToAllOptions())->wait();
  EXPECT_TRUE(at::equal(received, at::cat(expected)));
}

TEST(MpiBackend, BothSidesMaySendFirst) {
  const auto backend = make_backend();
  const int rank = backend->getRank(), partner = rank ^ 1;
  if (partner < backend->getSize()) {
    // Large: MPI does not buffer it, so the sends end only when the receives have begun.
    std::vector<at::Tensor> mine{at::full({300000}, static_cast<double>(rank))}, theirs{at::zeros({300000})};
    const auto sent = backend->send(mine, partner, 5);
    sent->isCompleted();
    const auto received = backend->recv(theirs, partner, 5);
    sent->wait();
    received->wait();
    EXPECT_TRUE(at::equal(theirs[0], at::full({300000}, static_cast<double>(partner))));
  }
  backend->barrier(c10d::BarrierOptions())->wait();
}

TEST(MpiBackend, IsInTheProcessGroupOfTheCommunicator) {
  const auto group = world().process_group();
  EXPECT_EQ(static_cast<bool>(group), world().size() > 1);
  if (!group) return;
  EXPECT_EQ(group->getBackend(c10::DeviceType::CPU)->getBackendName(), "sage_mpi");
  std::vector<at::Tensor> tensors{at::full({4}, 1.0, at::kDouble)};
  group->allreduce(tensors)->wait();  // through LibTorch's dispatcher, as c10d::Reducer calls it
  EXPECT_TRUE(at::equal(tensors[0], at::full({4}, static_cast<double>(world().size()), at::kDouble)));
}

TEST(MpiBackend, RefusesWhatItCannotDo) {
  const auto backend = make_backend();
  std::vector<at::Tensor> strided{at::zeros({4, 4}).t()}, complex{at::zeros({2}, at::kComplexFloat)}, none;
  EXPECT_THROW(backend->allreduce(strided, c10d::AllreduceOptions()), InternalError);
  EXPECT_THROW(backend->allreduce(complex, c10d::AllreduceOptions()), InternalError);
  EXPECT_THROW(backend->broadcast(none, c10d::BroadcastOptions()), InternalError);
  c10d::AllreduceOptions product;
  product.reduceOp = c10d::ReduceOp::PRODUCT;
  std::vector<at::Tensor> tensors{at::zeros({2})};
  EXPECT_THROW(backend->allreduce(tensors, product), InternalError);
}

}  // namespace
}  // namespace sage
