#include "models/per_example_gradients.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "core/error.h"

namespace sage {

bool matches_pattern(std::string_view text, std::string_view pattern) {
  std::size_t t = 0, p = 0, star = std::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// ---- Where a layer's gradients go ----

class PerExampleGradients::Sink {
 public:
  virtual ~Sink() = default;
  /// `input` and `gradient` (of the loss with respect to the output) of one layer for the examples of a chunk.
  virtual void take(const LayerScope& scope, const at::Tensor& input, const at::Tensor& gradient) = 0;
};

/// Into the columns of rows [B, D].
class PerExampleGradients::WriteSink : public Sink {
 public:
  explicit WriteSink(at::Tensor rows) : rows_(std::move(rows)) {}
  void take(const LayerScope& scope, const at::Tensor& input, const at::Tensor& gradient) override {
    const Layer& layer = *scope.layer;
    if (scope.weight_offset >= 0) {
      layer.write_weight_gradients(input, gradient, rows_.narrow(1, scope.weight_offset, layer.weight().numel()));
    }
    if (scope.bias_offset >= 0) {
      rows_.narrow(1, scope.bias_offset, layer.bias().numel()).copy_(layer.bias_gradients(input, gradient));
    }
  }

 private:
  at::Tensor rows_;
};

/// Against the columns of a sketch [ell, D], added to projected [B, ell] and squared_norms [B] (may be undefined).
class PerExampleGradients::ProjectSink : public Sink {
 public:
  ProjectSink(at::Tensor sketch, at::Tensor projected, at::Tensor squared_norms)
      : sketch_(std::move(sketch)), projected_(std::move(projected)), squared_norms_(std::move(squared_norms)) {}
  void take(const LayerScope& scope, const at::Tensor& input, const at::Tensor& gradient) override {
    const Layer& layer = *scope.layer;
    if (scope.weight_offset >= 0) {
      layer.project_weight_gradients(input, gradient, sketch_.narrow(1, scope.weight_offset, layer.weight().numel()),
                                     projected_, squared_norms_);
    }
    if (scope.bias_offset >= 0) {
      const at::Tensor bias = layer.bias_gradients(input, gradient);
      add_product(projected_, bias, sketch_.narrow(1, scope.bias_offset, layer.bias().numel()));
      if (squared_norms_.defined()) squared_norms_.add_(bias.square().sum(1));
    }
  }

 private:
  at::Tensor sketch_, projected_, squared_norms_;
};

// ---- Recording ----

/// Keeps the inputs of the layers in the scope until their output gradients arrive.
class PerExampleGradients::ChunkObserver : public LayerObserver {
 public:
  ChunkObserver(const std::map<const Layer*, LayerScope>& layers, Sink& sink) : layers_(layers), sink_(sink) {}

  at::Tensor observe(const Layer& layer, const at::Tensor& input, at::Tensor output) override {
    const auto found = layers_.find(&layer);
    if (found == layers_.end()) return output;
    // Nothing before the first layer in the scope needs a gradient: autograd begins at that layer's output, and at
    // those of other layers that do not depend on it.
    if (!output.requires_grad()) output = output.detach().set_requires_grad(true);
    auto recorded = std::make_shared<at::Tensor>(input.detach());
    output.register_hook([scope = found->second, sink = &sink_, recorded](const at::Tensor& gradient) {
      const at::NoGradGuard no_grad;
      sink->take(scope, *recorded, gradient);
      recorded->reset();
    });
    return output;
  }

 private:
  const std::map<const Layer*, LayerScope>& layers_;
  Sink& sink_;
};

/// For as long as it lives: the model is in eval mode, its layers show what they see to `observer` (unless null), and
/// convolutions on a GPU are deterministic and in full float32 (TF32 would cost three digits).
class PerExampleGradients::Recording {
 public:
  Recording(Classifier& model, LayerObserver* observer)
      : model_(model),
        was_training_(model.is_training()),
        context_(at::globalContext()),
        was_deterministic_(context_.deterministicCuDNN()),
        precision_(context_.float32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV)) {
    context_.setDeterministicCuDNN(true);
    context_.setFloat32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV, at::Float32Precision::IEEE);
    model_.eval();
    observe(observer);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  ~Recording() {
    observe(nullptr);
    model_.train(was_training_);
    context_.setFloat32Precision(at::Float32Backend::CUDA, at::Float32Op::CONV, precision_);
    context_.setDeterministicCuDNN(was_deterministic_);
  }

 private:
  void observe(LayerObserver* observer) {
    for (const auto& [name, layer] : named_layers(model_)) layer->set_observer(observer);
  }
  Classifier& model_;
  bool was_training_;
  at::Context& context_;
  bool was_deterministic_;
  at::Float32Precision precision_;
};

// ---- The scope ----

namespace {

bool is_in(const std::string& name, const std::string& head_prefix, const std::string& pattern) {
  if (pattern == "full") return true;
  if (pattern == "classifier") return name.starts_with(head_prefix);
  return matches_pattern(name, pattern);
}

void check_matrix(const at::Tensor& matrix, std::int64_t rows, std::int64_t columns, const char* what) {
  if (matrix.dim() != 2 || (rows >= 0 && matrix.size(0) != rows) || matrix.size(1) != columns ||
      (matrix.size(1) > 1 && matrix.stride(1) != 1)) {
    throw InternalError(fmt::format("{} should be [{}, {}] with contiguous columns, but is [{}]", what,
                                    rows < 0 ? "any" : std::to_string(rows), columns, fmt::join(matrix.sizes(), ", ")));
  }
}

}  // namespace

PerExampleGradients::PerExampleGradients(Classifier& model, const std::vector<std::string>& scope,
                                         double label_smoothing, std::int64_t chunk_size)
    : model_(model), label_smoothing_(label_smoothing), chunk_size_(chunk_size) {
  if (chunk_size < 1) {
    throw ConfigError(fmt::format("selection.gradient.chunk_size: {} is not at least 1", chunk_size));
  }
  if (!(label_smoothing >= 0.0 && label_smoothing < 1.0)) {
    throw ConfigError(fmt::format("training.label_smoothing: {} is not in [0, 1)", label_smoothing));
  }
  if (scope.empty()) {
    throw ConfigError("selection.gradient.scope: is empty; give classifier, full, or patterns of parameter names");
  }
  const auto layers = named_layers(model);
  const std::string head_prefix = model.head_name() + ".";

  const std::vector<NamedTensor> parameters = model.named_parameters();
  std::vector<std::string> names;
  for (const NamedTensor& parameter : parameters) names.push_back(parameter.name);
  for (const std::string& pattern : scope) {
    if (std::none_of(names.begin(), names.end(),
                     [&](const std::string& name) { return is_in(name, head_prefix, pattern); })) {
      throw ConfigError(
          fmt::format("selection.gradient.scope: no parameter matches '{}'; give classifier, full, or "
                      "patterns with * and ? of these names: {}",
                      pattern, fmt::join(names, ", ")));
    }
  }
  std::map<std::string, std::int64_t> offsets;
  for (const NamedTensor& parameter : parameters) {
    if (std::none_of(scope.begin(), scope.end(),
                     [&](const std::string& pattern) { return is_in(parameter.name, head_prefix, pattern); })) {
      continue;
    }
    offsets[parameter.name] = dimension_;
    slices_.push_back({parameter.name, dimension_, parameter.tensor.numel()});
    dimension_ += parameter.tensor.numel();
  }
  const auto offset_of = [&offsets](const std::string& name) {
    const auto found = offsets.find(name);
    return found == offsets.end() ? std::int64_t{-1} : found->second;
  };
  std::size_t placed = 0;
  for (const auto& [name, layer] : layers) {
    const LayerScope entry{layer, offset_of(layer->weight_name(name)),
                           layer->has_bias() ? offset_of(layer->bias_name(name)) : -1};
    const std::size_t count = (entry.weight_offset >= 0 ? 1 : 0) + (entry.bias_offset >= 0 ? 1 : 0);
    placed += count;
    if (layer == &model.head()) {
      head_ = entry;
    } else if (count > 0) {
      layers_.emplace(layer, entry);
    }
  }
  require(placed == slices_.size(), "a parameter in the scope belongs to no layer: its gradient cannot be recorded");
}

// ---- Passes ----

std::int64_t PerExampleGradients::chunk(std::int64_t batch) const {
  return is_forward_only() ? std::max<std::int64_t>(1, batch) : chunk_size_;
}

ClassifierFactors PerExampleGradients::factors(const at::Tensor& features, const at::Tensor& labels) const {
  const at::NoGradGuard no_grad;
  ClassifierFactors result;
  result.features = features.detach();
  result.probabilities = at::softmax(model_.logits(result.features), 1);
  const double classes = static_cast<double>(model_.class_count());
  result.residuals = result.probabilities - label_smoothing_ / classes;
  const at::Tensor index = labels.to(features.device()).unsqueeze(1);
  // One value per row: no two additions meet, so the order of a GPU's atomics cannot matter.
  result.residuals.scatter_add_(1, index,
                                at::full({features.size(0), 1}, label_smoothing_ - 1.0, result.residuals.options()));
  return result;
}

void PerExampleGradients::stream(const at::Tensor& images, const at::Tensor& labels, Sink& sink,
                                 const at::Tensor& probabilities) {
  ChunkObserver observer(layers_, sink);
  const Recording recording(model_, &observer);
  const at::AutoGradMode grad_mode(!is_forward_only());
  at::Tensor features = model_.features(images);
  const ClassifierFactors made = factors(features, labels);
  const at::NoGradGuard no_grad;
  if (probabilities.defined()) at::Tensor(probabilities).copy_(made.probabilities);
  sink.take(head_, made.features, made.residuals);
  if (!is_forward_only()) features.backward(made.residuals.mm(model_.head().weight().detach()));
}

void PerExampleGradients::write(const at::Tensor& images, const at::Tensor& labels, at::Tensor rows,
                                at::Tensor probabilities) {
  const std::int64_t batch = images.size(0), step = chunk(batch);
  check_matrix(rows, batch, dimension_, "rows");
  if (probabilities.defined()) check_matrix(probabilities, batch, model_.class_count(), "probabilities");
  for (std::int64_t first = 0; first < batch; first += step) {
    const std::int64_t count = std::min(step, batch - first);
    const auto part = [&](const at::Tensor& whole) { return whole.defined() ? whole.narrow(0, first, count) : whole; };
    WriteSink sink(part(rows));
    stream(part(images), part(labels), sink, part(probabilities));
  }
}

at::Tensor PerExampleGradients::project(const at::Tensor& images, const at::Tensor& labels, const at::Tensor& sketch,
                                        at::Tensor squared_norms, at::Tensor probabilities) {
  const std::int64_t batch = images.size(0), step = chunk(batch);
  check_matrix(sketch, -1, dimension_, "the sketch");
  if (probabilities.defined()) check_matrix(probabilities, batch, model_.class_count(), "probabilities");
  at::Tensor projected = at::zeros({batch, sketch.size(0)}, model_.head().weight().options());
  if (squared_norms.defined()) squared_norms.zero_();
  for (std::int64_t first = 0; first < batch; first += step) {
    const std::int64_t count = std::min(step, batch - first);
    const auto part = [&](const at::Tensor& whole) { return whole.defined() ? whole.narrow(0, first, count) : whole; };
    ProjectSink sink(sketch, part(projected), part(squared_norms));
    stream(part(images), part(labels), sink, part(probabilities));
  }
  return projected;
}

// ---- The factored form ----

ClassifierFactors PerExampleGradients::features_and_residuals(const at::Tensor& images, const at::Tensor& labels) {
  require(is_forward_only(), "features and residuals make whole gradients in scopes of the head alone only");
  const Recording recording(model_, nullptr);
  const at::NoGradGuard no_grad;
  return factors(model_.features(images), labels);
}

void PerExampleGradients::write_from_factors(const at::Tensor& features, const at::Tensor& residuals,
                                             at::Tensor rows) const {
  require(is_forward_only(), "features and residuals make whole gradients in scopes of the head alone only");
  check_matrix(rows, features.size(0), dimension_, "rows");
  const at::NoGradGuard no_grad;
  WriteSink(std::move(rows)).take(head_, features, residuals);
}

at::Tensor PerExampleGradients::project_from_factors(const at::Tensor& features, const at::Tensor& residuals,
                                                     const at::Tensor& sketch, at::Tensor squared_norms) const {
  require(is_forward_only(), "features and residuals make whole gradients in scopes of the head alone only");
  check_matrix(sketch, -1, dimension_, "the sketch");
  const at::NoGradGuard no_grad;
  at::Tensor projected = at::zeros({features.size(0), sketch.size(0)}, model_.head().weight().options());
  if (squared_norms.defined()) squared_norms.zero_();
  ProjectSink(sketch, projected, squared_norms).take(head_, features, residuals);
  return projected;
}

}  // namespace sage
