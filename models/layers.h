// The layers with parameters. Each can show what it saw to an observer and knows how to turn that into the gradients of
// single examples (see per_example_gradients.h). Those of transformers are in attention.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/module.h"

namespace sage {

class Layer;

/// Is shown every forward pass of the layers that it watches.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  /// `output` is what `layer` made of `input`; the forward pass goes on with what is returned.
  virtual at::Tensor observe(const Layer& layer, const at::Tensor& input, at::Tensor output) = 0;
};

/// How the values of a parameter start.
struct Start {
  enum class Law {
    constant,          ///< `scale` itself
    uniform,           ///< in +-scale
    normal,            ///< of standard deviation `scale`
    truncated_normal,  ///< the same within +-2, as torch.nn.init.trunc_normal_ has it
  };
  Law law = Law::constant;
  double scale = 0.0;
};

/// Fills `parameter` from RandomStream(seed, "init/" + name), in the order of a contiguous tensor, whatever its layout,
/// type and device.
void start(const at::Tensor& parameter, const Start& values, std::uint64_t seed, const std::string& name);

/// A layer with one parameter, its weight, and perhaps another, its bias. Below, `input` [B, ...] is what the layer saw
/// and `output_gradient` [B, ...] the gradient of the sum of the examples' losses with respect to its output, so that
/// slice b belongs to example b alone. None of the gradient functions records anything for autograd.
class Layer : public Block {
 public:
  /// While an observer is set, the parameters take no part in autograd: only gradients of data are computed.
  at::Tensor forward(const at::Tensor& input) final;
  void set_observer(LayerObserver* observer) { observer_ = observer; }

  const at::Tensor& weight() const { return *weight_; }
  /// Undefined where the layer has none.
  const at::Tensor& bias() const;
  bool has_bias() const { return bias_ != nullptr; }
  /// Dotted names of the parameters of a layer that is called `layer` in its network.
  std::string weight_name(const std::string& layer) const;
  std::string bias_name(const std::string& layer) const;

  /// Gives the parameters their first values, as start() does under their dotted names.
  virtual void initialize(std::uint64_t seed, const std::string& layer) = 0;

  /// [B, weight.numel()], in the order of a contiguous weight. Scratch: the result and, in a convolution, its unfolded
  /// input (on the CPU in float32: one padded example per thread).
  virtual at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const = 0;
  /// [B, bias.numel()]. A layer without a bias has none (InternalError).
  virtual at::Tensor bias_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const;
  /// Writes weight_gradients into `columns` [B, weight.numel()], whose rows may be strided and columns are contiguous.
  /// The bits do not depend on where the columns lie: matrix products, whose order of additions may follow the
  /// alignment of their result, are computed apart and copied.
  virtual void write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                      at::Tensor columns) const;
  /// Adds weight_gradients x block^T to `projected` [B, ell], and their squared norms to `squared_norms` [B] where that
  /// is defined. `block` [ell, weight.numel()] holds this weight's columns of a sketch; rows may be strided. Where it
  /// is in bfloat16, so are the products; sums over layers stay in the type of `projected`.
  virtual void project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                                        const at::Tensor& block, at::Tensor projected, at::Tensor squared_norms) const;

 protected:
  virtual at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) = 0;
  /// `bias` may be undefined: the layer has none.
  void register_weight_and_bias(at::Tensor weight, at::Tensor bias, std::string weight_name = "weight",
                                std::string bias_name = "bias");

 private:
  std::string weight_name_, bias_name_;
  const at::Tensor* weight_ = nullptr;  // owned by Module
  const at::Tensor* bias_ = nullptr;
  LayerObserver* observer_ = nullptr;
};

/// Adds gradients [B, n] x block^T to `projected` [B, ell], multiplied in the type of `block` [ell, n].
void add_product(at::Tensor projected, const at::Tensor& gradients, const at::Tensor& block);

struct LinearOptions {
  bool bias = true;
  std::optional<Start> weight_start = {};  ///< none: uniform in +-1/sqrt(inputs), as PyTorch's does
  std::optional<Start> bias_start = {};    ///< the same
};

/// y = x W^T + b for x [B, inputs] or, at each of T places, [B, T, inputs]; W [outputs, inputs].
class Linear : public Layer {
 public:
  Linear(std::int64_t inputs, std::int64_t outputs, const LinearOptions& options = {});
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  at::Tensor bias_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  void write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                              at::Tensor columns) const override;
  /// One place: contracts `block`, read as [ell, outputs, inputs], with the gradients and inputs: the outer products
  /// b a^T are never formed, and squared norms are ||b||^2 ||a||^2. Several: some outputs' gradients at a time.
  void project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient, const at::Tensor& block,
                                at::Tensor projected, at::Tensor squared_norms) const override;

 protected:
  Linear(std::int64_t inputs, std::int64_t outputs, const LinearOptions& options, std::string weight_name,
         std::string bias_name);
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;

 private:
  Start weight_start_, bias_start_;
};

/// How a convolution's weight starts.
enum class ConvolutionInit {
  kaiming_fan_out,  ///< normal, variance 2 / (outputs x window): torchvision's ResNet
  kaiming_fan_in,   ///< normal, variance 2 / (inputs / groups x window): He et al., "Delving deep into rectifiers", eq.
                    ///< 10
  lecun,            ///< truncated normal, variance 1 / (inputs / groups x window): torchvision's vision transformer
};

struct ConvolutionOptions {
  std::int64_t kernel = 3;  ///< side of the square window
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  std::int64_t groups = 1;
  bool bias = false;
  ConvolutionInit init = ConvolutionInit::kaiming_fan_out;
  std::optional<Start> bias_start = {};  ///< none: uniform in +-1/sqrt(inputs / groups x window), as PyTorch's does
};

/// Two-dimensional convolution, x [B, inputs, H, W], W [outputs, inputs / groups, kernel, kernel].
class Conv2d : public Layer {
 public:
  Conv2d(std::int64_t inputs, std::int64_t outputs, const ConvolutionOptions& options);
  const ConvolutionOptions& options() const { return options_; }
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  at::Tensor bias_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  void write_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient,
                              at::Tensor columns) const override;
  void project_weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient, const at::Tensor& block,
                                at::Tensor projected, at::Tensor squared_norms) const override;

 protected:
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;

 private:
  /// Of a depthwise convolution (a group for each channel): one product with the shifted input for each place in the
  /// window, in place of a tiny matrix product for each channel. Scratch: twice the padded input.
  at::Tensor depthwise_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const;
  bool is_depthwise() const { return weight().size(0) == options_.groups && weight().size(1) == 1; }
  /// The windows under every output pixel: [B x groups, inputs / groups x kernel^2, output pixels].
  at::Tensor unfold(const at::Tensor& input, const at::Tensor& output_gradient) const;
  /// Whether the loops of example_kernels.h can compute these gradients: float32 on the CPU, without dilation.
  bool has_kernel_for(const at::Tensor& input) const;
  /// Their columns of output channels `first` to `last` - 1, from tensors with channels last, at least one example.
  void run_kernel(const at::Tensor& input, const at::Tensor& output_gradient, std::int64_t first, std::int64_t last,
                  at::Tensor columns) const;
  ConvolutionOptions options_;
};

/// Normalisation with the statistics of the batch, which also moves the running statistics in place:
/// (input, weight, bias, running_mean, running_var, momentum, eps) -> output. Models never see a communicator: whoever
/// trains on several ranks gives a function that synchronises the statistics (then all ranks take part in each call).
using BatchNormFunction = std::function<at::Tensor(const at::Tensor& input, const at::Tensor& weight,
                                                   const at::Tensor& bias, const at::Tensor& running_mean,
                                                   const at::Tensor& running_var, double momentum, double eps)>;

/// The statistics of this process's batch alone (at::batch_norm, but that running_var stays where a channel has one
/// value).
at::Tensor local_batch_norm(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& running_mean, const at::Tensor& running_var, double momentum, double eps);

/// Batch normalisation of x [B, channels, H, W], momentum 0.1, eps 1e-5; buffers running_mean, running_var and
/// num_batches_tracked. In eval mode it uses the running statistics. Per-example gradients exist in eval mode only: in
/// training mode an example's loss depends on the others.
class BatchNorm2d : public Layer {
 public:
  explicit BatchNorm2d(std::int64_t channels, BatchNormFunction train_function = {});
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  at::Tensor bias_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;

 protected:
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;

 private:
  BatchNormFunction train_function_;
  const at::Tensor* running_mean_;
  const at::Tensor* running_var_;
  at::Tensor* num_batches_tracked_;
};

/// Layer normalisation of x [B, width] or [B, T, width] over its last dimension (Ba, Kiros, Hinton, 2016), eps 1e-6 as
/// in torchvision's vision transformer.
class LayerNorm : public Layer {
 public:
  explicit LayerNorm(std::int64_t width);
  void initialize(std::uint64_t seed, const std::string& layer) override;
  at::Tensor weight_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;
  at::Tensor bias_gradients(const at::Tensor& input, const at::Tensor& output_gradient) const override;

 protected:
  at::Tensor compute(const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias) override;
};

/// The layers below `root`, with dotted names, in registration order.
std::vector<std::pair<std::string, Layer*>> named_layers(Module& root);
/// Initialises every layer. Each parameter's values are a pure function of (seed, name, shape).
void initialize_parameters(Module& root, std::uint64_t seed);

}  // namespace sage
