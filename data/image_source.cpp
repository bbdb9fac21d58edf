#include "data/image_source.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/log.h"

namespace sage {
namespace {

/// The largest reduction that leaves `have` pixels at least twice `need` in each direction.
int reduction_for(ImageSize have, ImageSize need) {
  for (const int reduction : {8, 4, 2}) {
    if (have.height / reduction >= 2 * need.height && have.width / reduction >= 2 * need.width) return reduction;
  }
  return 1;
}

/// Sides after the shorter one was brought to side x margin: torchvision's Resize.
ImageSize resized(ImageSize whole, const ViewOptions& options) {
  const std::int64_t shorter = std::llround(static_cast<double>(options.side) * options.margin);
  if (whole.height <= whole.width) return {shorter, shorter * whole.width / whole.height};
  return {shorter * whole.height / whole.width, shorter};
}

bool has_the_size(ImageSize whole, const ViewOptions& options) {
  return whole.height == options.side && whole.width == options.side;
}

std::int64_t usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace

void to_planes(const std::uint8_t* pixels, std::int64_t count, std::int64_t channels, std::uint8_t* planes) {
  for (std::int64_t c = 0; c < channels; ++c, planes += count) {
    for (std::int64_t i = 0; i < count; ++i) planes[i] = pixels[i * channels + c];
  }
}

void write_view(const DecodedImage& image, const ViewOptions& options, std::uint8_t* target) {
  const std::int64_t side = options.side;
  if (has_the_size(image.size, options)) return to_planes(image.pixels.data(), side * side, 3, target);
  const ImageSize full = resized(image.size, options);
  // Halves are rounded to even, as Python does.
  const auto middle = [&](std::int64_t length) {
    return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(length - side) / 2.0));
  };
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(3 * side * side));
  resize_bilinear({image.pixels.data(), image.size.height, image.size.width, 3},
                  {0, 0, image.size.height, image.size.width}, full.height, full.width,
                  {middle(full.height), middle(full.width), side, side}, pixels.data());
  to_planes(pixels.data(), side * side, 3, target);
}

void EncodedImages::read(std::int64_t id, std::uint8_t* target) const {
  with_encoded(id, [&](std::span<const std::uint8_t> bytes) {
    const auto choose = [&](ImageSize whole) {
      return has_the_size(whole, view_) ? 1 : reduction_for(whole, resized(whole, view_));
    };
    write_view(decode_image(bytes, name(id), choose), view_, target);
  });
}

void EncodedImages::read_part(std::int64_t id, const ChoosePart& choose, std::uint8_t* target) const {
  with_encoded(id, [&](std::span<const std::uint8_t> bytes) {
    PixelBox part;
    bool chosen = false;
    int reduction = 1;
    const auto choose_reduction = [&](ImageSize whole) {
      part = choose(whole);
      chosen = true;
      return reduction_for({part.height, part.width}, {view_.side, view_.side});
    };
    const DecodedImage image = decode_image(bytes, name(id), choose_reduction, &reduction);
    if (!chosen) part = choose(image.size);  // a format that is always decoded whole
    // The whole pixels of the smaller image that lie within the part.
    const auto scaled = [&](std::int64_t first, std::int64_t count, std::int64_t limit) {
      const std::int64_t begin = (first + reduction - 1) / reduction;
      const std::int64_t end = std::min((first + count) / reduction, limit);
      return std::pair(std::min(begin, limit - 1), std::max<std::int64_t>(1, end - begin));
    };
    const auto [y, height] = scaled(part.y, part.height, image.size.height);
    const auto [x, width] = scaled(part.x, part.width, image.size.width);
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(3 * view_.side * view_.side));
    resize_bilinear({image.pixels.data(), image.size.height, image.size.width, 3}, {y, x, height, width}, view_.side,
                    view_.side, {0, 0, view_.side, view_.side}, pixels.data());
    to_planes(pixels.data(), view_.side * view_.side, 3, target);
  });
}

void EncodedImages::check(std::int64_t id) const {
  // Decoding an eighth reads every byte all the same.
  with_encoded(
      id, [&](std::span<const std::uint8_t> bytes) { decode_image(bytes, name(id), [](ImageSize) { return 8; }); });
}

void for_each_in_parallel(std::int64_t begin, std::int64_t end, const std::function<void(std::int64_t)>& work,
                          std::int64_t threads) {
  std::atomic<std::int64_t> next = begin;
  std::mutex mutex;
  std::map<std::int64_t, std::exception_ptr> errors;
  const auto run = [&] {
    for (;;) {
      const std::int64_t number = next++;
      if (number >= end) return;
      try {
        work(number);
      } catch (...) {
        const std::lock_guard lock(mutex);
        errors.emplace(number, std::current_exception());
        next = end;  // those below it are under way
      }
    }
  };
  {
    std::vector<std::jthread> pool;
    const std::int64_t wanted = threads > 0 ? threads : usable_cores();
    for (std::int64_t i = 1; i < std::min(wanted, end - begin); ++i) pool.emplace_back(run);
    run();
  }
  if (!errors.empty()) std::rethrow_exception(errors.begin()->second);
}

std::string with_way_out(const std::string& message) {
  return message + ". Mend or remove it, or leave such images out with data.corrupt_images=skip";
}

std::vector<std::int64_t> find_unreadable(std::int64_t begin, std::int64_t end, bool skip,
                                          const std::function<void(std::int64_t)>& read) {
  std::mutex mutex;
  std::map<std::int64_t, std::string> messages;
  for_each_in_parallel(begin, end, [&](std::int64_t id) {
    try {
      read(id);
    } catch (const DataError& error) {
      if (!skip) throw DataError(with_way_out(error.what()));
      const std::lock_guard lock(mutex);
      messages.emplace(id, error.what());
    }
  });
  std::vector<std::int64_t> ids;
  constexpr std::size_t most_named = 10;
  for (const auto& [id, message] : messages) {
    if (ids.size() < most_named) log::every_rank(fmt::format("{}; it is left out (data.corrupt_images=skip)", message));
    ids.push_back(id);
  }
  if (ids.size() > most_named) log::every_rank(fmt::format("{} more images are left out", ids.size() - most_named));
  return ids;
}

}  // namespace sage
