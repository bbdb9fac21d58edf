// A labelled image data set held as bytes.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sage {

/// One split. Example id = row number in the official order of the files.
struct Split {
  at::Tensor images;                 ///< uint8 [N, C, H, W], contiguous, CPU
  std::vector<std::int64_t> labels;  ///< N values in [0, class_count)
  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
};

struct Dataset {
  std::string name;
  Split train, test;
  std::int64_t class_count = 0;
  std::vector<std::string> class_names;  ///< class_count names
  std::vector<float> mean, deviation;  ///< per channel, of pixel values scaled to [0, 1] by 1/255, over the train split
  std::int64_t channels() const { return train.images.size(1); }
  std::int64_t height() const { return train.images.size(2); }
  std::int64_t width() const { return train.images.size(3); }
};

}  // namespace sage
