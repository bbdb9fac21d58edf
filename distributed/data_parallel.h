// Data-parallel training: every rank holds the same parameters, computes gradients on its own examples, and the
// gradients are averaged over the ranks while the backward pass still runs (Li et al., "PyTorch Distributed", VLDB
// 2020; the work is done by c10d::Reducer).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace sage {

/// Each step, on ALL ranks:
///
///   parallel.zero_gradients();
///   parallel.prepare_forward();
///   loss = ...;                      // scaled by ranks / global batch size: see below
///   parallel.prepare_backward(loss);
///   loss.backward();                 // gradients come out averaged over the ranks
///   parallel.finish_step();
///
/// A step of several forward and backward passes calls prepare_backward before the last backward alone: the others add
/// their gradients up on this rank.
///
/// Gradients are AVERAGED over ranks. Where ranks hold uneven parts of the global batch, let each rank's loss be
/// (ranks / global batch size) x the sum over its examples: the average is then the gradient of the global mean. Every
/// parameter must take part in every loss. Do not release gradients (set to undefined) between steps: they are views
/// of the reduction buffers.
class DataParallel {
 public:
  /// ALL ranks, with parameters (leaf tensors that require gradients) and buffers of equal shapes in the same order:
  /// rank 0's values are given to all. Gradients are reduced in buckets of about `bucket_bytes`, the same ones in every
  /// step. `communicator` must outlive this object.
  DataParallel(std::vector<at::Tensor> parameters, std::vector<at::Tensor> buffers, Communicator& communicator,
               std::int64_t bucket_bytes);
  ~DataParallel();
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  /// Sets all gradients to zero, in place.
  void zero_gradients();
  /// ALL ranks, before the forward pass of a training step.
  void prepare_forward();
  /// ALL ranks, between forward and backward: this backward pass reduces the gradients.
  void prepare_backward(const at::Tensor& loss);
  /// ALL ranks, after backward: all reductions are complete, or an error is thrown.
  void finish_step();

  /// ALL ranks: gives rank 0's buffers to all. Without synchronised batch statistics each rank has running statistics
  /// of its own; call it before they are used or saved, so that all ranks mean the same network.
  void broadcast_buffers();

  /// ALL ranks: gives rank 0's parameters and buffers to all, as the constructor does (after loading a checkpoint).
  void broadcast_state();

 private:
  struct Reduction;
  void settle_buckets();

  std::vector<at::Tensor> parameters_, buffers_;
  Communicator& communicator_;
  std::unique_ptr<Reduction> reduction_;  // null in a world of one
};

}  // namespace sage
