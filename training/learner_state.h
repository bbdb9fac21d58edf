// A network in training, out of its learner and back into it.
#pragma once
#include "training/checkpoint.h"
#include "training/experiment.h"
#include "training/host_copies.h"
#include "training/job.h"
#include "training/learner.h"

namespace sage {

/// The live parameters, then the live buffers.
std::vector<NamedTensor> named_state(const Module& network);

/// ALL ranks, between two steps. Whole on rank 0 (`copies` says when), without tensors on the others. Changes nothing
/// of the learner's course, and throws as Learner::settle() does.
LearnerState take_state(Learner& learner, const Experiment& experiment, const Job& job, HostCopies& copies);

/// ALL ranks. The learner, fresh, goes on as the one that `state` was taken of. Bit for bit on the same number of ranks
/// and devices of the same kind; on another number the ranks' totals are added up, and rank 0's batch statistics are
/// everybody's. Throws CheckpointError where the state is of another network or optimizer, and CommunicationError
/// unless all ranks then hold the same parameters.
void restore_state(Learner& learner, const LearnerState& state, const Job& job);

}  // namespace sage
