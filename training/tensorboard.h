// Event files that TensorBoard reads, written by hand: TFRecord framing (length, masked CRC-32C, data, masked CRC-32C)
// around five fields of one protocol buffer message (tensorflow/core/util/event.proto, framework/summary.proto).
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sage {

/// One event file in one folder (one "run" in TensorBoard's list).
class EventWriter {
 public:
  /// Makes the folder and a new file in it. `resumed_at_step`: TensorBoard then drops what older files of the folder
  /// hold from this step on. Throws EnvironmentError if it cannot be written.
  explicit EventWriter(const std::filesystem::path& folder, std::optional<std::int64_t> resumed_at_step = {});
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void scalar(std::string_view tag, double value, std::int64_t step);
  /// Counts of the values in TensorBoard's exponential buckets (factor 1.1). Values that are not finite are left out.
  void histogram(std::string_view tag, std::span<const float> values, std::int64_t step);
  /// How many examples there are of each class, as a histogram with one bucket for each. Nothing where there is none.
  void class_counts(std::string_view tag, std::span<const std::int64_t> counts, std::int64_t step);
  /// uint8 [H, W], [1, H, W] or [3, H, W] on the CPU.
  void image(std::string_view tag, const at::Tensor& pixels, std::int64_t step);
  /// Hands everything to the system. Throws EnvironmentError naming the file if that failed (full disk).
  void flush();
  const std::filesystem::path& path() const { return path_; }

 private:
  /// `moments`: least, most, number, sum and sum of squares of the values.
  void histogram_event(std::string_view tag, const std::array<double, 5>& moments, std::span<const double> limits,
                       std::span<const double> counts, std::int64_t step);
  void event(std::string_view payload_field, std::optional<std::int64_t> step);
  std::filesystem::path path_;
  struct File;
  std::unique_ptr<File> file_;
};

}  // namespace sage
