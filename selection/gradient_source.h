// What selection asks of whoever can compute per-example gradients. training/ implements it over a model and a data
// set; tests implement it over a matrix. Selection itself never sees a model.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace sage {

/// What the gradient of the last layer is made of: g_i = [r_i; r_i h_i^T]. float32, on the source's device.
struct ExampleFactors {
  at::Tensor features;       ///< h [n, F], what the last layer sees
  at::Tensor residuals;      ///< r = softmax - (smoothed) target [n, C]
  at::Tensor probabilities;  ///< softmax [n, C]
};

/// The gradients g_i in R^D of the loss of single examples at fixed weights. Local to a rank: no collectives.
class GradientSource {
 public:
  virtual ~GradientSource() = default;
  virtual std::int64_t dimension() const = 0;    ///< D
  virtual std::int64_t class_count() const = 0;  ///< C
  virtual at::Device device() const = 0;

  /// Writes the gradients of examples `ids` into `rows` ([ids.size(), D], float32, a view into a sketch buffer: rows
  /// may be strided, columns are contiguous) and their class probabilities into `probabilities` ([ids.size(), C],
  /// float32; may be undefined: not wanted).
  virtual void gradients(std::span<const std::int64_t> ids, at::Tensor rows, at::Tensor probabilities) = 0;

  /// S g_i for examples `ids` without ever holding ids.size() x D: `sketch` is S [ell, D], float32 or, for products of
  /// that precision, bfloat16; returns [ids.size(), ell], float32.
  /// `squared_norms` ([ids.size()], float32; may be undefined) receives ||g_i||^2.
  virtual at::Tensor project(std::span<const std::int64_t> ids, const at::Tensor& sketch, at::Tensor squared_norms,
                             at::Tensor probabilities) = 0;

  virtual std::int64_t feature_count() const = 0;  ///< F
  /// The factors of the last layer's gradients of examples `ids`, whatever the scope of gradients().
  virtual ExampleFactors factors(std::span<const std::int64_t> ids) = 0;

  /// Bytes that keeping what pass 2 needs of one example costs (features and logits); 0 if nothing can be kept.
  virtual std::int64_t cacheable_bytes_per_example() const = 0;
  /// Keep (or drop) what gradients() and project() compute, so that project() on the same ids runs no model.
  virtual void set_caching(bool on) = 0;
};

}  // namespace sage
