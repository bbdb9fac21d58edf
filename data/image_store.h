// The images of one split where the network runs: bytes on the CPU or, moved there once, on a GPU.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>

#include "data/augment.h"
#include "data/dataset.h"

namespace sage {

/// Makes batches of network input from example ids. On a CUDA device the bytes are copied there once and batches are
/// made by a kernel on the current stream, without waiting. All calls are const and may be made from several threads
/// (on the CPU).
class ImageStore {
 public:
  /// `images`: uint8 [N, C, H, W]; shared with the caller on the CPU. Throws EnvironmentError for a CUDA device without
  /// the program's CUDA part.
  ImageStore(const at::Tensor& images, std::span<const float> mean, std::span<const float> deviation, at::Device device,
             bool channels_last);
  /// One split of `dataset`, normalised with the statistics of its train split.
  ImageStore(const Dataset& dataset, const Split& split, at::Device device, bool channels_last);

  /// Examples `ids` without augmentation: float32 [ids.size(), C, H, W] on device(), for evaluation and selection.
  at::Tensor images_of(std::span<const std::int64_t> ids) const;

  /// The same with one choice per example (or none: empty). `parallel` (CPU): use the threads of the process; worker
  /// threads say no.
  at::Tensor augmented(std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices,
                       bool parallel = true) const;

  std::int64_t size() const { return images_.size(0); }
  std::int64_t height() const { return images_.size(2); }
  std::int64_t width() const { return images_.size(3); }
  at::Device device() const { return images_.device(); }
  /// Bytes that the images take on device().
  std::int64_t bytes() const { return images_.numel(); }

 private:
  at::Tensor make_on_cuda(std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices) const;

  at::Tensor images_;
  Normalization normalization_;
  at::MemoryFormat format_;
  at::Tensor mean_, deviation_;     // CUDA only
  AugmentImages kernel_ = nullptr;  // CUDA only
};

/// Whole numbers of the host as a tensor on `device`, through pinned memory and without waiting if it is a GPU.
at::Tensor to_device(std::span<const std::int64_t> values, at::Device device);

}  // namespace sage
