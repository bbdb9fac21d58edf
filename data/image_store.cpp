#include "data/image_store.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/plugin.h"

namespace sage {
namespace {

/// Bytes of the host in a new tensor on a CUDA device. The pinned copy may be freed at once: LibTorch's allocator hands
/// it out again only after the transfer.
at::Tensor stage(const void* bytes, std::size_t count, at::Device device) {
  at::Tensor pinned = at::empty({static_cast<std::int64_t>(count)}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::memcpy(pinned.mutable_data_ptr(), bytes, count);
  return pinned.to(device, /*non_blocking=*/true);
}

}  // namespace

at::Tensor to_device(std::span<const std::int64_t> values, at::Device device) {
  const auto count = static_cast<std::int64_t>(values.size());
  auto options = at::TensorOptions(at::kLong).pinned_memory(device.is_cuda() && count > 0);
  at::Tensor host = at::empty({count}, options);
  if (count > 0) std::memcpy(host.mutable_data_ptr(), values.data(), values.size_bytes());
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

ImageStore::ImageStore(const at::Tensor& images, std::span<const float> mean, std::span<const float> deviation,
                       at::Device device, bool channels_last)
    : normalization_(mean, deviation),
      format_(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous) {
  require(images.dim() == 4 && images.scalar_type() == at::kByte && images.device().is_cpu(),
          "ImageStore: images must be uint8 [N, C, H, W] on the CPU");
  require(normalization_.channels() == images.size(1), "ImageStore: statistics of another number of channels");
  require(device.is_cpu() || device.is_cuda(), "ImageStore: neither a CPU nor a CUDA device");
  images_ = images.contiguous();
  if (device.is_cuda()) {
    kernel_ = reinterpret_cast<AugmentImages>(load_cuda_function(augment_images_symbol));
    images_ = images_.to(device);
    auto on_device = [&](std::span<const float> values) {
      return at::from_blob(const_cast<float*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kFloat)
          .to(device);
    };
    mean_ = on_device(mean);
    deviation_ = on_device(deviation);
  }
}

ImageStore::ImageStore(const Dataset& dataset, const Split& split, at::Device device, bool channels_last)
    : ImageStore(split.images, dataset.mean, dataset.deviation, device, channels_last) {}

at::Tensor ImageStore::images_of(std::span<const std::int64_t> ids) const { return augmented(ids, {}); }

at::Tensor ImageStore::augmented(std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices,
                                 bool parallel) const {
  if (kernel_ != nullptr) return make_on_cuda(ids, choices);
  at::Tensor output = at::empty({static_cast<std::int64_t>(ids.size()), images_.size(1), height(), width()},
                                at::TensorOptions(at::kFloat).memory_format(format_));
  prepare_images(images_, ids, choices, normalization_, output, parallel);
  return output;
}

at::Tensor ImageStore::make_on_cuda(std::span<const std::int64_t> ids, std::span<const AugmentChoice> choices) const {
  require(choices.empty() || choices.size() == ids.size(), "ImageStore: one choice per example");
  for (const std::int64_t id : ids) require(id >= 0 && id < size(), "ImageStore: example id out of range");
  const c10::DeviceGuard guard(device());
  const auto count = static_cast<std::int64_t>(ids.size());
  at::Tensor output = at::empty({count, images_.size(1), height(), width()},
                                at::TensorOptions(at::kFloat).device(device()).memory_format(format_));
  if (count == 0) return output;
  const at::Tensor rows = to_device(ids, device());
  at::Tensor staged;
  if (!choices.empty()) staged = stage(choices.data(), choices.size_bytes(), device());
  const AugmentLaunch launch{
      .images = images_.const_data_ptr<std::uint8_t>(),
      .rows = rows.const_data_ptr<std::int64_t>(),
      .choices = choices.empty() ? nullptr : static_cast<const AugmentChoice*>(staged.const_data_ptr()),
      .mean = mean_.const_data_ptr<float>(),
      .deviation = deviation_.const_data_ptr<float>(),
      .output = output.mutable_data_ptr<float>(),
      .count = count,
      .channels = images_.size(1),
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
