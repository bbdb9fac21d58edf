// The images of one split on their way to where the network runs.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"

namespace sage {

/// Part of a batch that the CPU has made for a device. Any thread may make it.
struct StagedImages {
  at::Tensor bytes;                    ///< uint8 [n, C, H, W], pinned for a GPU; undefined: the store has them
  std::vector<AugmentChoice> choices;  ///< what is left to do, one for each; empty: nothing
};

/// Makes batches of network input from example ids, whether the images are bytes in memory or a source of them. On a
/// CUDA device bytes in memory are copied there once and batches are made by a kernel on the current stream, without
/// waiting; images from a source, and those whose bytes are changed (AugmentOptions::changes_bytes), are made ready on
/// the CPU and travel through pinned memory. All calls are const; on the CPU they may be made from several threads.
class ImageStore {
 public:
  /// `images`: uint8 [N, C, H, W]; shared with the caller on the CPU. Throws EnvironmentError for a CUDA device without
  /// the program's CUDA part.
  ImageStore(const at::Tensor& images, std::span<const float> mean, std::span<const float> deviation, at::Device device,
             bool channels_last);
  /// One split of `dataset`, normalised with the statistics of its train split. Shares its source, if it has one.
  ImageStore(const Dataset& dataset, const Split& split, at::Device device, bool channels_last);

  /// Examples `ids` without augmentation: float32 [ids.size(), C, H, W] on device(), for evaluation and selection.
  at::Tensor images_of(std::span<const std::int64_t> ids) const;

  /// The same, augmented. `parallel` (CPU): use the threads of the process; worker threads say no. Throws DataError for
  /// an image that cannot be read.
  at::Tensor augmented(std::span<const std::int64_t> ids, const Augmentation& augmentation, bool parallel = true) const;

  /// augmented() in two parts, for a GPU: finish(ids, stage(ids, ...)). stage() may be called from several threads.
  StagedImages stage(std::span<const std::int64_t> ids, const Augmentation* augmentation, bool parallel) const;
  at::Tensor finish(std::span<const std::int64_t> ids, const StagedImages& staged, bool parallel) const;
  /// Whether stage() has much to do: decoding or changing bytes.
  bool is_staging(const AugmentOptions& options) const { return source_ != nullptr || options.changes_bytes(); }

  /// The bytes as they are, for people: uint8 [ids.size(), C, H, W] on the CPU.
  at::Tensor bytes_of(std::span<const std::int64_t> ids) const;

  std::int64_t size() const { return count_; }
  std::int64_t channels() const { return channels_; }
  std::int64_t height() const { return size_.height; }
  std::int64_t width() const { return size_.width; }
  at::Device device() const { return device_; }
  /// Bytes that the images take on device(); of a source, what it holds on the CPU.
  std::int64_t bytes() const { return source_ != nullptr ? source_->bytes() : images_.numel(); }

 private:
  std::int64_t image_bytes() const { return channels_ * size_.height * size_.width; }
  void make_bytes(std::int64_t id, const Augmentation* augmentation, AugmentChoice* choice, std::uint8_t* target) const;
  at::Tensor make_on_cuda(const at::Tensor& images, std::span<const std::int64_t> row_numbers,
                          std::span<const AugmentChoice> choices) const;

  std::int64_t count_ = 0, channels_ = 0;
  ImageSize size_;
  at::Device device_;
  at::Tensor images_;       // undefined where there is a source
  at::Tensor host_images_;  // the same bytes on the CPU
  std::shared_ptr<const ImageSource> source_;
  Normalization normalization_;
  at::MemoryFormat format_;
  at::Tensor mean_, deviation_;     // CUDA only
  AugmentImages kernel_ = nullptr;  // CUDA only
};

/// Numbers of the host as a tensor of its own on `device` (int64 or float32), through pinned memory and without waiting
/// if it is a GPU.
at::Tensor to_device(std::span<const std::int64_t> values, at::Device device);
at::Tensor to_device(std::span<const float> values, at::Device device);

}  // namespace sage
