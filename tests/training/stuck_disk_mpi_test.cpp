// A disk that does not answer while a checkpoint is written: all ranks hear of it, and nobody waits for ever.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/log.h"
#include "core/stopwatch.h"
#include "support/mpi.h"
#include "support/synthetic_experiment.h"
#include "support/temporary_folder.h"
#include "training/trainer.h"

namespace sage {
namespace {

namespace fs = std::filesystem;
using testing::bytes_of;
using testing::contains;
using testing::message_of;

TEST(StuckDisk, AllRanksGiveUpAtTheDeadlineAndNoneWaitsForTheWriter) {
  log::set_quiet(true);
  const std::vector<std::string> settings = {"model.name=mlp",
                                             "training.batch_size=20",
                                             "training.epochs=2",
                                             "selection.mode=none",
                                             "output.tensorboard=false",
                                             "output.save_interval=1",
                                             "distributed.deadline_seconds=4"};
  const auto what = testing::synthetic_experiment(60, 4, parse_config("", "test", settings));
  const auto deadline_before = runtime().deadline();
  const bool leads = world().rank() == 0;
  fs::path folder, pipe;
  std::optional<RunFolder> run_folder;
  if (leads) {
    std::string pattern = (fs::temp_directory_path() / "sage_stuck_disk_XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    log::open_file(folder / "log.txt");
    run_folder.emplace(RunFolder::open(folder / "run", OpenMode::fresh));
    // In the place of the file that is written: as long as nobody reads from the pipe, its opening does not return.
    pipe = run_folder->checkpoints() / ("checkpoint_epoch_1.safetensors." + std::to_string(getpid()) + ".tmp");
    EXPECT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  }
  const auto train = [&] {
    Job job(runtime(), what->config.device, what->config.distributed);
    Trainer trainer(*what, job, run_folder ? &*run_folder : nullptr);
    trainer.run();
  };
  const Stopwatch watch;
  if (leads) {
    const std::string message = message_of<EnvironmentError>(train);
    EXPECT_TRUE(contains(message, "checkpoint_epoch_1.safetensors: not written within 4 s"));
    EXPECT_TRUE(contains(message, "distributed.deadline_seconds"));
    EXPECT_TRUE(contains(bytes_of(folder / "log.txt"), "waiting for the disk: "));
    // The thread that was left goes on where the disk answers at last, and touches nothing that is gone.
    if (!message.empty()) {
      EXPECT_FALSE(bytes_of(pipe).empty());
    }
  } else {
    EXPECT_THROW(train(), PeerFailed);
  }
  EXPECT_LT(watch.seconds(), 40.0);
  runtime().set_deadline(deadline_before);
  world().barrier();
  run_folder.reset();
  if (leads) fs::remove_all(folder);
}

}  // namespace
}  // namespace sage
