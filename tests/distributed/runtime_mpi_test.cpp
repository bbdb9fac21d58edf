#include "distributed/runtime.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "core/error.h"
#include "core/plugin.h"
#include "distributed/cuda_part.h"
#include "support/mpi.h"

namespace sage {
namespace {

int cuda_devices() {
  try {
    return cuda::device_count();
  } catch (const EnvironmentError&) {
    return 0;
  }
}

TEST(Runtime, RanksOfOneNodeAreNumbered) {
  // Tests run on one node: the local world is the world.
  EXPECT_EQ(runtime().local_size(), runtime().size());
  EXPECT_EQ(runtime().local_rank(), runtime().rank());
  EXPECT_FALSE(runtime().host().empty());
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(runtime().size(), size);
}

TEST(Runtime, IsTheOnlyOne) { EXPECT_THROW(Runtime(), InternalError); }

TEST(Runtime, SetsTheThreads) {
  DeviceConfig config;
  config.type = "cpu";
  config.threads = 2;
  EXPECT_TRUE(runtime().configure(config).is_cpu());
  EXPECT_EQ(runtime().compute_threads(), 2);
  EXPECT_EQ(at::get_num_threads(), 2);
  EXPECT_EQ(at::get_num_interop_threads(), 1);

  // Without a number: the cores are shared by the ranks of the node. OMP_NUM_THREADS comes before that.
  const char* saved = std::getenv("OMP_NUM_THREADS");
  const std::string before = saved != nullptr ? saved : "";
  config.threads = 0;
  unsetenv("OMP_NUM_THREADS");
  runtime().configure(config);
  at::Tensor share = at::full({1}, runtime().compute_threads(), at::kLong);
  EXPECT_GE(share.item<std::int64_t>(), 1);
  world().all_reduce_sum(share);
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  EXPECT_LE(share.item<std::int64_t>(), std::max<std::int64_t>(cores, world().size()));
  setenv("OMP_NUM_THREADS", "1", 1);
  runtime().configure(config);
  EXPECT_EQ(runtime().compute_threads(), 1);
  if (saved != nullptr) setenv("OMP_NUM_THREADS", before.c_str(), 1);
}

TEST(Runtime, ChoosesTheDevice) {
  DeviceConfig config;
  config.type = "tpu";
  EXPECT_THROW(runtime().configure(config), ConfigError);
  const int devices = cuda_devices();
  config.type = "cuda";
  if (devices >= runtime().local_size()) {
    EXPECT_EQ(runtime().configure(config), at::Device(at::kCUDA, static_cast<at::DeviceIndex>(runtime().local_rank())));
  } else {
    EXPECT_THROW(runtime().configure(config), EnvironmentError);
  }
  config.type = "auto";
  if (devices == 0) {
    EXPECT_TRUE(runtime().configure(config).is_cpu());
  }
}

TEST(Runtime, KnowsItsLibraries) {
  const LibraryVersions versions = library_versions();
  EXPECT_FALSE(versions.mpi.empty());
  EXPECT_EQ(versions.nccl.empty(), !cuda_part_available());
  EXPECT_EQ(versions.cuda_runtime.empty(), !cuda_part_available());
}

TEST(CudaPart, SaysWhyItIsMissing) {
  if (cuda_part_available()) {
    EXPECT_THROW(load_cuda_function("no_such_function"), EnvironmentError);
    return;
  }
  try {
    cuda::device_count();
    FAIL() << "no error";
  } catch (const EnvironmentError& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.find("driver") != std::string::npos || text.find("not there") != std::string::npos ||
                text.find("cannot be loaded") != std::string::npos)
        << text;
  }
}

}  // namespace
}  // namespace sage
