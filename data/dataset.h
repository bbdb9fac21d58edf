// A labelled image data set: held as bytes, or read from files as it is used.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/image_source.h"

namespace sage {

/// One split. Example id = row number in the official order of the files.
struct Split {
  at::Tensor images;                 ///< uint8 [N, C, H, W], contiguous, CPU; undefined where there is a source
  std::vector<std::int64_t> labels;  ///< N values in [0, class_count)
  std::shared_ptr<const ImageSource> source = nullptr;  ///< where images are read as they are used
  std::vector<std::int64_t> unreadable = {};            ///< ids whose image does not decode, ascending; never used

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  /// All ids but the unreadable ones, ascending.
  std::vector<std::int64_t> readable_ids() const {
    std::vector<std::int64_t> ids;
    for (std::int64_t id = 0; id < size(); ++id) {
      if (!std::ranges::binary_search(unreadable, id)) ids.push_back(id);
    }
    return ids;
  }
};

struct Dataset {
  std::string name;
  Split train, test;
  std::int64_t class_count = 0;
  std::vector<std::string> class_names;  ///< class_count names
  std::vector<float> mean, deviation;  ///< per channel, of pixel values scaled to [0, 1] by 1/255, over the train split
  std::int64_t channels() const { return train.source ? train.source->channels() : train.images.size(1); }
  std::int64_t height() const { return train.source ? train.source->height() : train.images.size(2); }
  std::int64_t width() const { return train.source ? train.source->width() : train.images.size(3); }
};

}  // namespace sage
