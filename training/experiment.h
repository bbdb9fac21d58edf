// What a run works on, resolved from the configuration: the same on every rank but for the device.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "core/config.h"
#include "data/dataset.h"
#include "data/image_store.h"
#include "distributed/communicator.h"
#include "models/classifier.h"

namespace sage {

/// A network's training and selection see ids of the train split only; labels may be made wrong on purpose.
struct Experiment {
  Config config;
  Dataset dataset;
  std::vector<std::int64_t> labels;     ///< of the train split, as trained on
  std::vector<std::int64_t> corrupted;  ///< ids whose label was made wrong, ascending
  std::vector<std::int64_t> dropped_by_long_tail, dropped_by_downsampling;  ///< ids left out on purpose, ascending
  /// Ids that may be trained on, ascending: neither validation, nor dropped, nor unreadable.
  std::vector<std::int64_t> candidates;
  std::vector<std::int64_t> validation;  ///< ids held out of the train split, ascending; may be empty
  std::int64_t global_batch = 0;         ///< examples in one step, all ranks
  at::Device device = at::kCPU;
  std::unique_ptr<ImageStore> train_images, test_images;

  /// Examples of each class that may be trained on.
  std::vector<std::int64_t> class_counts() const;
  /// Optimizer steps that one epoch over `examples` examples takes.
  std::int64_t steps_of(std::int64_t examples) const { return (examples + global_batch - 1) / global_batch; }
};

/// Reads the data (once per node, unless data.share_on_node says no), then as the configuration says leaves examples
/// out (long tail, then the smaller classes), splits validation off and makes labels of the rest wrong. ALL ranks: if
/// it fails on any rank, all throw. Throws ConfigError, DataError; also where a class has no example to train on.
std::unique_ptr<Experiment> prepare_experiment(const Config& config, at::Device device, Communicator& communicator);

/// A network of `name` with fresh weights from `seed`, on the experiment's device, with synchronised batch statistics
/// where there are several ranks and the configuration wants them. `statistics` carries those: a communicator of its
/// own, so that they do not queue behind gradients; it must outlive the network.
std::shared_ptr<Classifier> make_network(const Experiment& experiment, const std::string& name, std::uint64_t seed,
                                         Communicator& statistics);

/// The network that the run trains or scores with: make_network() of model.name and `seed`, with the weights of
/// model.pretrained where the configuration names a file. What of it was left out is logged. ALL ranks, which `all`
/// connects: each reads the file, and if it fails on any rank, all throw CheckpointError.
std::shared_ptr<Classifier> make_starting_network(const Experiment& experiment, std::uint64_t seed, Communicator& all,
                                                  Communicator& statistics);

/// The seed of a network that is none of the run's own (`purpose`: "proxy"), derived from the run's.
std::uint64_t derived_seed(std::uint64_t seed, const char* purpose);

}  // namespace sage
