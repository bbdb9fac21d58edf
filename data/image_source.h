// Images that are not held in memory: read, decoded and brought to one size when a batch asks for them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/image_decoder.h"
#include "data/resize.h"

namespace sage {

/// Given the size of a whole image, the part of it that is wanted.
using ChoosePart = std::function<PixelBox(ImageSize whole)>;

/// The images of one split by example id. All calls are const and may be made from several threads.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual std::int64_t size() const = 0;
  /// What images are brought to.
  virtual std::int64_t channels() const = 0;
  virtual std::int64_t height() const = 0;
  virtual std::int64_t width() const = 0;
  /// The file or record of an example, for messages.
  virtual std::string name(std::int64_t id) const = 0;
  /// Writes an image as evaluation and selection see it to `target` [channels, height, width]. Throws DataError that
  /// names the file or record if it cannot be had.
  virtual void read(std::int64_t id, std::uint8_t* target) const = 0;
  /// The same for a part of it, brought to height x width whatever its aspect ratio.
  virtual void read_part(std::int64_t id, const ChoosePart& choose, std::uint8_t* target) const = 0;
  /// Throws what read() would throw, with less work where there is less to do.
  virtual void check(std::int64_t id) const = 0;
  /// What `sage data pack` puts into a record: the file as it is. Throws DataError; InternalError where there is none.
  virtual std::vector<std::uint8_t> encoded(std::int64_t id) const = 0;
  /// Memory that the source holds for itself.
  virtual std::int64_t bytes() const = 0;
};

/// How images of any size become images of one.
struct ViewOptions {
  std::int64_t side = 224;  ///< pixels of the square
  /// The shorter side is brought to side x this (rounded), then the middle is cut out. 1: no more than the square.
  double margin = 256.0 / 224.0;
};

/// Encoded images (JPEG, PNG) to RGB of one size. An image that has that size already is left as it is. Where a JPEG
/// image is more than twice as large as what is made of it, a half, quarter or eighth of it is decoded.
class EncodedImages : public ImageSource {
 public:
  explicit EncodedImages(const ViewOptions& view) : view_(view) {}
  std::int64_t channels() const override { return 3; }
  std::int64_t height() const override { return view_.side; }
  std::int64_t width() const override { return view_.side; }
  const ViewOptions& view() const { return view_; }
  void read(std::int64_t id, std::uint8_t* target) const override;
  void read_part(std::int64_t id, const ChoosePart& choose, std::uint8_t* target) const override;
  void check(std::int64_t id) const override;

 protected:
  /// Calls `use` with the bytes of the file.
  virtual void with_encoded(std::int64_t id,
                            const std::function<void(std::span<const std::uint8_t> bytes)>& use) const = 0;

 private:
  ViewOptions view_;
};

/// The view of an image of any size that `options` describe: [3, side, side] bytes to `target`. As torchvision's Resize
/// and CenterCrop on a PIL image.
void write_view(const DecodedImage& image, const ViewOptions& options, std::uint8_t* target);

/// Splits interleaved pixels [count, channels] into planes [channels, count].
void to_planes(const std::uint8_t* pixels, std::int64_t count, std::int64_t channels, std::uint8_t* planes);

/// Calls `work` with each of begin .. end - 1, by as many threads as the process may use cores, or as `threads` says if
/// above 0. After all have ended, throws what the lowest number threw.
void for_each_in_parallel(std::int64_t begin, std::int64_t end, const std::function<void(std::int64_t)>& work,
                          std::int64_t threads = 0);

/// The ids in begin .. end - 1 for which `read` throws a DataError, ascending, in parallel. `skip`
/// (data.corrupt_images): they are returned and their messages logged, the first few one by one; otherwise the first is
/// thrown, with the way out.
std::vector<std::int64_t> find_unreadable(std::int64_t begin, std::int64_t end, bool skip,
                                          const std::function<void(std::int64_t)>& read);

/// The message of a DataError about an image, with what to do about it.
std::string with_way_out(const std::string& message);

}  // namespace sage
