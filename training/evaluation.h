#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/image_store.h"
#include "distributed/communicator.h"
#include "models/classifier.h"
#include "training/metrics.h"

namespace sage {

struct EvaluationReport {
  Evaluation mean;  ///< over all examples
  std::int64_t examples = 0;
  std::vector<double> class_accuracy;  ///< per class; NaN for a class without examples
};

/// Loss and accuracy of `network` in eval mode on examples `ids` of `images`, whose labels are `labels[id]`. ALL ranks,
/// with the same arguments: each takes a contiguous part without padding, and the sums go over all. The network is left
/// in the mode it had. `precision`: training.precision.
EvaluationReport evaluate(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                          std::span<const std::int64_t> ids, std::int64_t batch_size, Communicator& communicator,
                          const std::string& precision);

}  // namespace sage
