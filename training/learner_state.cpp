#include "training/learner_state.h"

#include <fmt/format.h>

#include <cstring>

#include "core/error.h"
#include "distributed/parameter_hash.h"
#include "models/weights.h"

namespace sage {
namespace {

/// Where ranks have batch statistics of their own, they differ in the middle of an epoch.
bool has_own_statistics(const Experiment& experiment, const Job& job) {
  return job.communicator->size() > 1 && !experiment.config.training.sync_batch_norm;
}

/// ALL ranks, with tensors of the same names, shapes and types. Host tensors of every rank, in rank order.
std::vector<std::vector<NamedTensor>> gather(const std::vector<NamedTensor>& mine, Communicator& communicator) {
  std::string bytes;
  for (const NamedTensor& tensor : mine) {
    bytes.append(static_cast<const char*>(tensor.tensor.const_data_ptr()), tensor.tensor.nbytes());
  }
  std::vector<std::vector<NamedTensor>> all;
  for (const std::string& of_rank : communicator.all_gather_strings(bytes)) {
    require(of_rank.size() == bytes.size(), "the ranks hold tensors of different sizes");
    std::vector<NamedTensor> theirs;
    std::size_t position = 0;
    for (const NamedTensor& like : mine) {
      at::Tensor tensor = at::empty_like(like.tensor);
      if (tensor.nbytes() > 0) std::memcpy(tensor.mutable_data_ptr(), of_rank.data() + position, tensor.nbytes());
      position += tensor.nbytes();
      theirs.push_back({like.name, tensor});
    }
    all.push_back(std::move(theirs));
  }
  return all;
}

/// The one entry of Learner::state() that differs between ranks: sums over the examples of each.
constexpr std::string_view kOwnTotals = "totals";

/// What this rank goes on with.
std::vector<NamedTensor> learner_state_of(const std::vector<RankState>& saved, const Communicator& communicator) {
  const auto rank = static_cast<std::size_t>(communicator.rank());
  if (saved.size() == static_cast<std::size_t>(communicator.size())) return saved[rank].learner;
  std::vector<NamedTensor> state = saved.front().learner;
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (state[i].name != kOwnTotals) continue;
    at::Tensor total = at::zeros_like(state[i].tensor);
    if (rank == 0) {
      for (const RankState& other : saved) {
        if (i >= other.learner.size() || other.learner[i].name != kOwnTotals ||
            !other.learner[i].tensor.sizes().equals(total.sizes())) {
          throw CheckpointError("the checkpoint does not hold the same of every rank that wrote it");
        }
        total += other.learner[i].tensor;
      }
    }
    state[i].tensor = total;
  }
  return state;
}

}  // namespace

std::vector<NamedTensor> named_state(const Module& network) {
  auto state = network.named_parameters();
  const auto buffers = network.named_buffers();
  state.insert(state.end(), buffers.begin(), buffers.end());
  return state;
}

LearnerState take_state(Learner& learner, const Experiment& experiment, const Job& job, HostCopies& copies) {
  const bool own_statistics = has_own_statistics(experiment, job);
  Classifier& network = learner.network();
  std::vector<NamedTensor> buffers;
  if (own_statistics) {
    HostCopies buffer_copies;
    buffers = buffer_copies.copy(network.named_buffers());
    buffer_copies.wait();
  }
  learner.settle();
  if (own_statistics) load_tensors(network.named_buffers(), buffers, "batch statistics");  // settle() gave rank 0's

  LearnerState state;
  auto learners = gather(learner.state(), *job.communicator);
  auto statistics = gather(buffers, *job.communicator);
  if (!job.is_lead()) return state;
  for (std::size_t rank = 0; rank < learners.size(); ++rank) {
    state.ranks.push_back({std::move(learners[rank]), std::move(statistics[rank])});
  }
  state.model = copies.copy(named_state(network));
  state.optimizer = copies.copy(learner.optimizer().state());
  return state;
}

void restore_state(Learner& learner, const LearnerState& state, const Job& job) {
  Communicator& communicator = *job.communicator;
  communicator.all_or_none([&] {
    load_state(learner.network(), state.model);
    learner.optimizer().load_state(state.optimizer);
    if (state.ranks.empty()) throw CheckpointError("the checkpoint holds nothing of the ranks that wrote it");
    learner.load_state(learner_state_of(state.ranks, communicator));
    if (state.ranks.size() == static_cast<std::size_t>(communicator.size())) {
      const auto& buffers = state.ranks[static_cast<std::size_t>(communicator.rank())].buffers;
      if (!buffers.empty()) load_tensors(learner.network().named_buffers(), buffers, "batch statistics");
    }
  });
  check_same_parameters(learner.network().named_parameters(), communicator);
}

}  // namespace sage
