// A training step of ResNet-20 on made-up CIFAR-10 images, without the making of batches: what the peers time too.
#pragma once
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <malloc.h>
#include <sys/resource.h>

#include <memory>
#include <numeric>
#include <utility>

#include "data/sharding.h"
#include "training/experiment.h"
#include "training/learner.h"

namespace sage::benchmarks {

constexpr std::int64_t global_batch = 128;

/// CPU seconds of this process, all its threads.
inline double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// As the program does (launch/main.cpp).
inline void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

inline std::unique_ptr<Experiment> resnet20_experiment(const std::string& precision, bool sync_batch_norm) {
  auto experiment = std::make_unique<Experiment>();
  TrainingConfig& training = experiment->config.training;
  training.momentum = 0.9;
  training.weight_decay = 5e-4;
  training.precision = precision;
  training.sync_batch_norm = sync_batch_norm;
  experiment->global_batch = training.batch_size = global_batch;
  Dataset& dataset = experiment->dataset;
  dataset.name = "random";
  dataset.class_count = 10;
  dataset.train.images = at::empty({1, 3, 32, 32}, at::kByte);
  return experiment;
}

/// This rank's part of a batch of normal numbers.
inline Batch random_batch(const Communicator& communicator) {
  const Range mine = balanced_range(global_batch, communicator.rank(), communicator.size());
  Batch batch;
  batch.images = at::randn({mine.size(), 3, 32, 32}, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
  batch.labels = at::randint(10, {mine.size()}, at::kLong);
  batch.ids.resize(static_cast<std::size_t>(mine.size()));
  std::iota(batch.ids.begin(), batch.ids.end(), mine.begin);
  batch.global_count = global_batch;
  return batch;
}

/// A network that learns `batch` again and again.
class TrainingSteps {
 public:
  TrainingSteps(const std::string& precision, bool sync_batch_norm, Communicator& communicator,
                Communicator& statistics)
      : experiment_(resnet20_experiment(precision, sync_batch_norm)),
        batch_(random_batch(communicator)),
        learner_(*experiment_, make_network(*experiment_, "resnet20", 0, statistics), communicator, timer_) {}
  void operator()(int steps) {
    for (int i = 0; i < steps; ++i) learner_.step(batch_, 0.01, "benchmark");
  }
  const PhaseTimer& timer() const { return timer_; }

 private:
  std::unique_ptr<Experiment> experiment_;
  Batch batch_;
  PhaseTimer timer_;
  Learner learner_;
};

}  // namespace sage::benchmarks
