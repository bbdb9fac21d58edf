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
  Evaluation mean;  ///< over all examples, with F1 and the accuracy of each class
  std::int64_t examples = 0;
  at::Tensor confusion;  ///< int64 [C, C] on the CPU: examples of each class (rows) by what is predicted
};

/// Mean over the classes c that occur, as label or as prediction, of 2 m_cc / (row sum c + column sum c):
/// scikit-learn's f1_score(average="macro"). `confusion`: int64 [C, C] on the CPU. NaN without examples.
double f1_macro(const at::Tensor& confusion);

/// Cross-entropy, accuracy and F1 of `network` in eval mode on examples `ids` of `images`, whose labels are
/// `labels[id]`. ALL ranks, with the same arguments: each takes a contiguous part without padding, and the sums go over
/// all. The network is left in the mode it had. `precision`: training.precision.
EvaluationReport evaluate(Classifier& network, const ImageStore& images, std::span<const std::int64_t> labels,
                          std::span<const std::int64_t> ids, std::int64_t batch_size, Communicator& communicator,
                          const std::string& precision);

}  // namespace sage
