// Batches of one epoch, in order, made ahead of time.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "data/augment.h"
#include "data/image_store.h"
#include "data/sharding.h"

namespace sage {

/// What one rank works on in one step.
struct Batch {
  at::Tensor images;              ///< float32 [B, C, H, W] on the store's device; B may be 0
  at::Tensor labels;              ///< int64 [B] on the same device
  at::Tensor weights;             ///< float32 [B] on the same device, of each example's loss; undefined: all 1
  std::vector<std::int64_t> ids;  ///< B example ids
  std::int64_t global_count = 0;  ///< examples of all ranks in this step
  std::int64_t step = 0;          ///< within the epoch
  /// CutMix, MixUp: the labels that are mixed in, as `labels`; undefined where the batch is not mixed. An example's
  /// loss is own_part x that of its label + (1 - own_part) x that of the other.
  at::Tensor other_labels = {};
  std::vector<std::int64_t> other_ids = {};  ///< their examples
  at::Tensor other_weights = {};             ///< as `weights`
  double own_part = 1.0;
};

/// Yields the rank's batches of an EpochPlan in order. With workers (CPU), threads prepare up to `prefetch` batches
/// ahead, and each worker at least one; what is delivered does not depend on their number. On a CUDA device the kernel
/// makes each batch when it is asked for, behind the work that is queued there; workers are started where images have
/// to be decoded or changed on the CPU first, and leave the bytes in pinned memory.
///
///     for (Batch& batch : loader) train(batch);
class Loader {
 public:
  /// `labels[id]` for every id of the plan: those to train on, which may differ from the data set's. `store` and
  /// `labels` must outlive the loader. Throws ConfigError if `augment` does not fit the images.
  Loader(const ImageStore& store, std::span<const std::int64_t> labels, EpochPlan plan, const AugmentOptions& augment,
         std::int64_t workers, std::int64_t prefetch = 2);
  Loader(Loader&&) noexcept;
  Loader& operator=(Loader&&) noexcept;
  /// Stops and joins the workers, also in the middle of an epoch.
  ~Loader();

  /// The next batch, or nothing at the end of the epoch. Rethrows what a worker threw when its batch is due; after
  /// that there are no more batches.
  std::optional<Batch> next();
  std::int64_t steps() const;
  /// The images of any examples, augmented as in this epoch's batches: float32 [ids.size(), C, H, W].
  at::Tensor images_of(std::span<const std::int64_t> ids) const;

  /// Input iteration over the batches that are left.
  class Iterator {
   public:
    explicit Iterator(Loader* loader) : loader_(loader) { ++*this; }
    Batch& operator*() { return *batch_; }
    Iterator& operator++() {
      batch_ = loader_->next();
      return *this;
    }
    bool operator!=(std::nullptr_t) const { return batch_.has_value(); }

   private:
    Loader* loader_;
    std::optional<Batch> batch_;
  };
  Iterator begin() { return Iterator(this); }
  std::nullptr_t end() { return nullptr; }

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sage
