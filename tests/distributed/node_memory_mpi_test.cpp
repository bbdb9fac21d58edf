#include "distributed/node_memory.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "core/error.h"
#include "support/mpi.h"

namespace sage {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool memory_is_ours = false;  // a sanitizer keeps notes beside every byte
#else
constexpr bool memory_is_ours = true;
#endif

/// Bytes of this process that no other process shares, and its part of those that are shared.
struct MemoryUse {
  std::int64_t own = 0, proportional = 0;
};

MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string line; std::getline(rollup, line);) {
    std::istringstream words(line);
    std::string key;
    std::int64_t kilobytes = 0;
    words >> key >> kilobytes;
    if (key == "Private_Clean:" || key == "Private_Dirty:") use.own += kilobytes << 10;
    if (key == "Pss:") use.proportional = kilobytes << 10;
  }
  return use;
}

/// The lines of this process's memory map that name shared memory of once_per_node.
std::vector<std::string> shared_maps() {
  std::vector<std::string> found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:sage-shared") != std::string::npos) found.push_back(line);
  }
  return found;
}

std::int64_t sum_over_ranks(std::int64_t value) {
  at::Tensor sum = at::full({1}, value, at::kLong);
  world().all_reduce_sum(sum);
  return sum.item<std::int64_t>();
}

void fill(at::Tensor tensor) {
  auto* bytes = tensor.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 31 % 251);
}

TEST(OncePerNode, AllRanksGetWhatOneMade) {
  int made = 0;
  const NodeShared shared = once_per_node(world(), [&](const AllocateShared& allocate) {
    ++made;
    const at::Tensor images = allocate({10, 3, 5});
    fill(images);
    return NodeShared{"text \"quoted\"",
                      {images.narrow(0, 2, 7), at::arange(1000, at::kLong), at::empty({0, 4}, at::kFloat)}};
  });
  EXPECT_EQ(made, world().rank() == 0 ? 1 : 0);
  EXPECT_EQ(shared.text, "text \"quoted\"");
  ASSERT_EQ(shared.tensors.size(), 3u);
  at::Tensor expected = at::empty({10, 3, 5}, at::kByte);
  fill(expected);
  EXPECT_TRUE(at::equal(shared.tensors[0], expected.narrow(0, 2, 7)));
  EXPECT_TRUE(at::equal(shared.tensors[1], at::arange(1000, at::kLong)));
  EXPECT_EQ(shared.tensors[2].sizes(), (std::vector<std::int64_t>{0, 4}));
}

TEST(OncePerNode, ALargeTensorIsCountedOnce) {
  constexpr std::int64_t bytes = std::int64_t{64} << 20;
  const MemoryUse before = memory_use();
  const NodeShared shared = once_per_node(world(), [&](const AllocateShared& allocate) {
    const at::Tensor images = allocate({bytes});
    fill(images);
    return NodeShared{"", {images}};
  });
  // All ranks have the pages mapped and looked at before anyone counts.
  const std::int64_t seen = shared.tensors[0].sum().item<std::int64_t>();
  EXPECT_EQ(sum_over_ranks(seen), seen * world().size());
  const MemoryUse after = memory_use();
  world().barrier();
  const double whole = static_cast<double>(bytes);
  const auto grown = static_cast<double>(sum_over_ranks(after.proportional - before.proportional));
  if (memory_is_ours) {
    EXPECT_NEAR(grown, whole, 0.2 * whole);
  }
  if (world().size() > 1) {
    if (memory_is_ours) {
      EXPECT_LT(after.own - before.own, bytes / 8) << "nothing of it is this rank's alone";
    }
    ASSERT_EQ(shared_maps().size(), 1u);
    EXPECT_NE(shared_maps()[0].find(" r--s "), std::string::npos) << "read-only: " << shared_maps()[0];
  }
}

TEST(OncePerNode, IsGoneWithTheLastTensor) {
  EXPECT_TRUE(shared_maps().empty()) << "of the tests before";
  NodeShared shared = once_per_node(world(), [&](const AllocateShared& allocate) {
    return NodeShared{"", {allocate({1000}), allocate({2000})}};
  });
  const at::Tensor part = shared.tensors[1].narrow(0, 500, 10);
  EXPECT_EQ(shared_maps().size(), world().size() > 1 ? 2u : 0u);
  shared = {};
  EXPECT_EQ(shared_maps().size(), world().size() > 1 ? 1u : 0u);
  EXPECT_EQ(part.numel(), 10);
}

TEST(OncePerNode, LeavesNothingInTheFileSystem) {
  const auto names = [] {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
      if (entry.path().filename().string().find("sage") != std::string::npos) found.insert(entry.path().string());
    }
    return found;
  };
  const auto before = names();
  std::set<std::string> during;
  const NodeShared shared = once_per_node(world(), [&](const AllocateShared& allocate) {
    NodeShared made{"", {allocate({1000})}};
    during = names();
    return made;
  });
  EXPECT_EQ(names(), before);
  if (world().rank() == 0) {
    EXPECT_EQ(during, before);
  }
  world().barrier();
}

TEST(OncePerNode, AnErrorIsThrownByAll) {
  int error = 0, peer = 0;
  try {
    once_per_node(world(), [](const AllocateShared&) -> NodeShared { throw DataError("a bad file"); });
  } catch (const DataError& failure) {
    error = 1;
    EXPECT_STREQ(failure.what(), "a bad file");
  } catch (const PeerFailed& failure) {
    peer = 1;
    EXPECT_EQ(failure.status(), static_cast<int>(ExitStatus::data));
  }
  EXPECT_EQ(sum_over_ranks(error), 1) << "one message";
  EXPECT_EQ(sum_over_ranks(peer), world().size() - 1);
}

/// While it lives, this process can open no further file.
class NoFiles {
 public:
  NoFiles() {
    getrlimit(RLIMIT_NOFILE, &before_);
    for (int& filler : fillers_) filler = dup(0);  // numbers free below those of open files
    const rlimit full{static_cast<rlim_t>(fillers_.back() + 1), before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &full);
  }
  NoFiles(const NoFiles&) = delete;
  NoFiles& operator=(const NoFiles&) = delete;
  ~NoFiles() {
    setrlimit(RLIMIT_NOFILE, &before_);
    for (const int filler : fillers_) close(filler);
  }

 private:
  rlimit before_{};
  std::array<int, 64> fillers_{};
};

TEST(OncePerNode, ARankThatCannotShareHoldsItsOwn) {
  // Rank 0 cannot make an anonymous file: all hold their own.
  int made = 0;
  const NodeShared own = once_per_node(world(), [&](const AllocateShared& allocate) {
    ++made;
    std::optional<NoFiles> none;
    if (world().rank() == 0) none.emplace();
    const at::Tensor images = allocate({300});
    fill(images);
    return NodeShared{"x", {images}};
  });
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(shared_maps().empty());
  // The others cannot open what rank 0 made.
  std::optional<NoFiles> none;
  if (world().rank() != 0) none.emplace();
  made = 0;
  const NodeShared refused = once_per_node(world(), [&](const AllocateShared& allocate) {
    ++made;
    const at::Tensor images = allocate({300});
    fill(images);
    return NodeShared{"x", {images}};
  });
  none.reset();
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(at::equal(own.tensors[0], refused.tensors[0]));
  EXPECT_EQ(own.text, refused.text);
}

}  // namespace
}  // namespace sage
