// A forward pass over chosen examples, dealt to the ranks and gathered again.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "data/image_store.h"
#include "distributed/communicator.h"
#include "models/classifier.h"

namespace sage {

/// In the order of the ids that were asked for.
struct ExampleOutputs {
  at::Tensor residuals;       ///< softmax - one-hot [n, C] on the CPU: gradients of the cross entropy by the logits
  std::vector<float> losses;  ///< cross entropy
  std::vector<std::uint8_t> right;  ///< 1 where the prediction is the label
  double mean_loss = 0.0;           ///< with label smoothing
  double loss_error = 0.0;          ///< standard error of mean_loss over draws of n examples
};

/// What `network` (float32 or float64) says of the un-augmented images `ids`, in eval mode; it is left in the mode that
/// it had. ALL ranks, with the same arguments; the same bits on every rank, and up to the rounding of the weights at
/// any number of ranks: passes are of `chunk` examples wherever they are made. n C values in memory on each rank.
/// Throws TrainingError on ALL ranks, naming an example, where a loss is not finite.
ExampleOutputs forward_examples(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                                std::span<const std::int64_t> ids, std::int64_t chunk, double label_smoothing,
                                Communicator& communicator);

/// Puts a network into eval mode while it lives.
class EvalMode {
 public:
  explicit EvalMode(Module& network) : network_(network), was_training_(network.is_training()) { network.eval(); }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;
  ~EvalMode() { network_.train(was_training_); }

 private:
  Module& network_;
  bool was_training_;
};

}  // namespace sage
