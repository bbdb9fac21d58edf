// The gradient of every single example's loss, streamed layer by layer into a sketch buffer or against a sketch.
//
// g_i is the gradient of the cross entropy of example i with respect to the parameters in the scope, the model in eval
// mode. The head's part needs the forward pass only: with r = softmax - smoothed target and h the features it is r h^T
// and r. For the other layers, only gradients of data are back-propagated (of the sum of the losses, so that slice b of
// every output gradient belongs to example b alone); parameters take no part. The moment a layer's output gradient
// arrives, a hook turns it and the layer's recorded input into [chunk, parameters of the layer], which goes into the
// rows' columns, or is multiplied with the layer's block of the sketch, and is dropped. Scratch beyond what an ordinary
// backward pass keeps: chunk x largest layer and (on a GPU, or in float64) its unfolded input, never chunk x D. A
// repeat gives the same bits.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "models/classifier.h"

namespace sage {

/// Columns [offset, offset + count) of a gradient belong to parameter `name`, in the order of a contiguous tensor.
struct ParameterSlice {
  std::string name;
  std::int64_t offset = 0, count = 0;
};

/// What the head's gradients are made of.
struct ClassifierFactors {
  at::Tensor features;       ///< h [B, F]
  at::Tensor residuals;      ///< r = softmax - smoothed target [B, C]
  at::Tensor probabilities;  ///< softmax of the logits [B, C]
};

/// Where the parameters of one layer lie in a gradient; -1: not in the scope.
struct LayerScope {
  const Layer* layer = nullptr;
  std::int64_t weight_offset = -1, bias_offset = -1;
};

class PerExampleGradients {
 public:
  /// `scope`: `classifier` (the head), `full`, or patterns of parameter names with * (any characters) and ? (one), or
  /// several of these: their union. Columns follow named_parameters(). A pattern that matches nothing is a ConfigError
  /// that lists the names. `chunk_size`: examples in one backward pass (>= 1); without layers below the head a batch is
  /// taken whole. The model must outlive this object, and is put into eval mode only while a call lasts.
  PerExampleGradients(Classifier& model, const std::vector<std::string>& scope, double label_smoothing,
                      std::int64_t chunk_size);

  std::int64_t dimension() const { return dimension_; }  ///< D
  const std::vector<ParameterSlice>& slices() const { return slices_; }
  /// Whether the scope holds only parameters of the head, so that gradients need no backward pass.
  bool is_forward_only() const { return layers_.empty(); }

  /// images [B, ...] and labels int64 [B] -> rows [B, D] (of the model's type or float32; rows may be strided, columns
  /// are contiguous: a view into a sketch buffer) and probabilities [B, C] (undefined: not wanted).
  void write(const at::Tensor& images, const at::Tensor& labels, at::Tensor rows, at::Tensor probabilities = {});
  /// S g_i [B, ell] in the model's type for sketch S [ell, D] (rows may be strided) of the model's type or, for
  /// products of that precision, in bfloat16. squared_norms [B] receives ||g_i||^2; it and probabilities may be
  /// undefined.
  at::Tensor project(const at::Tensor& images, const at::Tensor& labels, const at::Tensor& sketch,
                     at::Tensor squared_norms = {}, at::Tensor probabilities = {});

  /// The factored form, for forward-only scopes (else InternalError): the factors may be kept between two passes.
  ClassifierFactors features_and_residuals(const at::Tensor& images, const at::Tensor& labels);
  void write_from_factors(const at::Tensor& features, const at::Tensor& residuals, at::Tensor rows) const;
  at::Tensor project_from_factors(const at::Tensor& features, const at::Tensor& residuals, const at::Tensor& sketch,
                                  at::Tensor squared_norms = {}) const;

 private:
  class Sink;
  class WriteSink;
  class ProjectSink;
  class ChunkObserver;
  class Recording;
  /// One chunk through the network, forward and, where the scope needs it, backward.
  void stream(const at::Tensor& images, const at::Tensor& labels, Sink& sink, const at::Tensor& probabilities);
  ClassifierFactors factors(const at::Tensor& features, const at::Tensor& labels) const;
  std::int64_t chunk(std::int64_t batch) const;

  Classifier& model_;
  double label_smoothing_;
  std::int64_t chunk_size_;
  std::int64_t dimension_ = 0;
  std::vector<ParameterSlice> slices_;
  LayerScope head_;
  std::map<const Layer*, LayerScope> layers_;  // those in the scope, but for the head
};

/// Whether `text` matches `pattern`, in which * stands for any characters and ? for one.
bool matches_pattern(std::string_view text, std::string_view pattern);

}  // namespace sage
