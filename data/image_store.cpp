#include "data/image_store.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/plugin.h"
#include "data/randaugment.h"

namespace sage {
namespace {

/// Bytes of the host in a new tensor on a CUDA device. The pinned copy may be freed at once: LibTorch's allocator hands
/// it out again only after the transfer.
at::Tensor copy_to_cuda(const void* bytes, std::size_t count, at::Device device) {
  at::Tensor pinned = at::empty({static_cast<std::int64_t>(count)}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::memcpy(pinned.mutable_data_ptr(), bytes, count);
  return pinned.to(device, /*non_blocking=*/true);
}

/// Numbers of the host, of `type`, in a new tensor on `device`; through pinned memory and without waiting if it is a
/// GPU.
template <class Number>
at::Tensor copy_to_device(std::span<const Number> values, at::ScalarType type, at::Device device) {
  const auto count = static_cast<std::int64_t>(values.size());
  at::Tensor host = at::empty({count}, at::TensorOptions(type).pinned_memory(device.is_cuda() && count > 0));
  if (count > 0) std::memcpy(host.mutable_data_ptr(), values.data(), values.size_bytes());
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

}  // namespace

at::Tensor to_device(std::span<const std::int64_t> values, at::Device device) {
  return copy_to_device(values, at::kLong, device);
}

at::Tensor to_device(std::span<const float> values, at::Device device) {
  return copy_to_device(values, at::kFloat, device);
}

ImageStore::ImageStore(const at::Tensor& images, std::span<const float> mean, std::span<const float> deviation,
                       at::Device device, bool channels_last)
    : device_(device),
      normalization_(mean, deviation),
      format_(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous) {
  if (images.defined()) {
    require(images.dim() == 4 && images.scalar_type() == at::kByte && images.device().is_cpu(),
            "ImageStore: images must be uint8 [N, C, H, W] on the CPU");
    count_ = images.size(0);
    channels_ = images.size(1);
    size_ = {images.size(2), images.size(3)};
    host_images_ = images_ = images.contiguous();
  }
  require(device.is_cpu() || device.is_cuda(), "ImageStore: neither a CPU nor a CUDA device");
  if (device.is_cuda()) {
    kernel_ = reinterpret_cast<AugmentImages>(load_cuda_function(augment_images_symbol));
    if (images_.defined()) images_ = images_.to(device);
    auto on_device = [&](std::span<const float> values) {
      return at::from_blob(const_cast<float*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kFloat)
          .to(device);
    };
    mean_ = on_device(mean);
    deviation_ = on_device(deviation);
  }
  require(!images.defined() || normalization_.channels() == channels_,
          "ImageStore: statistics of another number of channels");
}

ImageStore::ImageStore(const Dataset& dataset, const Split& split, at::Device device, bool channels_last)
    : ImageStore(split.images, dataset.mean, dataset.deviation, device, channels_last) {
  source_ = split.source;
  if (source_ == nullptr) return;
  count_ = source_->size();
  channels_ = source_->channels();
  size_ = {source_->height(), source_->width()};
  require(normalization_.channels() == channels_, "ImageStore: statistics of another number of channels");
}

at::Tensor ImageStore::images_of(std::span<const std::int64_t> ids) const {
  return finish(ids, stage(ids, nullptr, /*parallel=*/true), /*parallel=*/true);
}

at::Tensor ImageStore::augmented(std::span<const std::int64_t> ids, const Augmentation& augmentation,
                                 bool parallel) const {
  return finish(ids, stage(ids, &augmentation, parallel), parallel);
}

at::Tensor ImageStore::bytes_of(std::span<const std::int64_t> ids) const {
  at::Tensor bytes = at::empty({static_cast<std::int64_t>(ids.size()), channels_, height(), width()}, at::kByte);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::uint8_t* target = bytes.mutable_data_ptr<std::uint8_t>() + static_cast<std::int64_t>(i) * image_bytes();
    make_bytes(ids[i], nullptr, nullptr, target);
  }
  return bytes;
}

StagedImages ImageStore::stage(std::span<const std::int64_t> ids, const Augmentation* augmentation,
                               bool parallel) const {
  for (const std::int64_t id : ids) require(id >= 0 && id < size(), "ImageStore: example id out of range");
  StagedImages staged;
  if (augmentation != nullptr) {
    for (const std::int64_t id : ids) staged.choices.push_back(choose_augmentation(*augmentation, id, size_));
  }
  if (source_ == nullptr && (augmentation == nullptr || !augmentation->options.changes_bytes())) return staged;
  const auto count = static_cast<std::int64_t>(ids.size());
  staged.bytes = at::empty({count, channels_, height(), width()},
                           at::TensorOptions(at::kByte).pinned_memory(device_.is_cuda() && count > 0));
  if (count == 0) return staged;
  auto* bytes = staged.bytes.mutable_data_ptr<std::uint8_t>();
  const auto make = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      make_bytes(ids[at], augmentation, augmentation != nullptr ? &staged.choices[at] : nullptr,
                 bytes + i * image_bytes());
    }
  };
  if (parallel) {
    at::parallel_for(0, count, 1, make);
  } else {
    make(0, count);
  }
  return staged;
}

/// Writes the image [C, H, W] to `target`, changed as far as bytes are; takes from `choice` what is done by that.
void ImageStore::make_bytes(std::int64_t id, const Augmentation* augmentation, AugmentChoice* choice,
                            std::uint8_t* target) const {
  const std::uint8_t* held =
      source_ == nullptr ? host_images_.const_data_ptr<std::uint8_t>() + id * image_bytes() : nullptr;
  try {
    if (augmentation != nullptr && augmentation->options.random_resized_crop) {
      const auto choose = [&](ImageSize whole) { return choose_part(*augmentation, id, whole); };
      if (source_ != nullptr) {
        source_->read_part(id, choose, target);
      } else {
        const std::int64_t plane = height() * width();
        for (std::int64_t c = 0; c < channels_; ++c) {
          resize_bilinear({held + c * plane, height(), width(), 1}, choose(size_), height(), width(),
                          {0, 0, height(), width()}, target + c * plane);
        }
      }
    } else if (source_ != nullptr) {
      source_->read(id, target);
    } else {
      std::memcpy(target, held, static_cast<std::size_t>(image_bytes()));
    }
  } catch (const DataError& error) {
    throw DataError(with_way_out(error.what()));
  }
  if (augmentation == nullptr || augmentation->options.randaugment == 0) return;
  std::vector<std::uint8_t> scratch(target, target + image_bytes());
  shift_and_flip(scratch.data(), channels_, size_, *choice, target);
  choice->shift_y = choice->shift_x = choice->flip = 0;
  const AugmentOptions& options = augmentation->options;
  for (const ImageChange& change : choose_changes(options.randaugment, options.randaugment_magnitude,
                                                  augmentation->seed, augmentation->epoch, id, size_)) {
    apply_change(change, target, channels_, size_, scratch);
  }
}

at::Tensor ImageStore::finish(std::span<const std::int64_t> ids, const StagedImages& staged, bool parallel) const {
  require(staged.choices.empty() || staged.choices.size() == ids.size(), "ImageStore: one choice per example");
  std::vector<std::int64_t> numbers;  // of the rows that were made ready
  std::span<const std::int64_t> rows = ids;
  if (staged.bytes.defined()) {
    numbers.resize(ids.size());
    std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
    rows = numbers;
  }
  if (kernel_ != nullptr) {
    const c10::DeviceGuard guard(device());
    return make_on_cuda(staged.bytes.defined() ? staged.bytes.to(device(), /*non_blocking=*/true) : images_, rows,
                        staged.choices);
  }
  at::Tensor output = at::empty({static_cast<std::int64_t>(ids.size()), channels_, height(), width()},
                                at::TensorOptions(at::kFloat).memory_format(format_));
  prepare_images(staged.bytes.defined() ? staged.bytes : images_, rows, staged.choices, normalization_, output,
                 parallel);
  return output;
}

at::Tensor ImageStore::make_on_cuda(const at::Tensor& images, std::span<const std::int64_t> row_numbers,
                                    std::span<const AugmentChoice> choices) const {
  const auto count = static_cast<std::int64_t>(row_numbers.size());
  at::Tensor output = at::empty({count, channels_, height(), width()},
                                at::TensorOptions(at::kFloat).device(device()).memory_format(format_));
  if (count == 0) return output;
  const at::Tensor rows = to_device(row_numbers, device());
  at::Tensor staged;
  if (!choices.empty()) staged = copy_to_cuda(choices.data(), choices.size_bytes(), device());
  const AugmentLaunch launch{
      .images = images.const_data_ptr<std::uint8_t>(),
      .rows = rows.const_data_ptr<std::int64_t>(),
      .choices = choices.empty() ? nullptr : static_cast<const AugmentChoice*>(staged.const_data_ptr()),
      .mean = mean_.const_data_ptr<float>(),
      .deviation = deviation_.const_data_ptr<float>(),
      .output = output.mutable_data_ptr<float>(),
      .count = count,
      .channels = channels_,
      .height = height(),
      .width = width(),
      .channels_last = format_ == at::MemoryFormat::ChannelsLast,
  };
  // LibTorch's current stream, asked for through its device-independent interface: this file links no CUDA.
  const c10::impl::VirtualGuardImpl streams(c10::DeviceType::CUDA);
  const char* problem = kernel_(&launch, streams.getStreamNativeHandle(streams.getStream(device())));
  if (problem != nullptr) throw EnvironmentError(fmt::format("the augmentation kernel did not start: {}", problem));
  return output;
}

}  // namespace sage
