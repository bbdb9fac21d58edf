#include <ATen/ops/gelu.h>
#include <fmt/format.h>

#include <cmath>
#include <string>

#include "core/error.h"
#include "models/architectures.h"
#include "models/attention.h"
#include "models/blocks.h"

namespace sage {
namespace {

at::Tensor gelu(const at::Tensor& x) { return at::gelu(x); }

struct TransformerSize {
  std::int64_t patch, width, inner, heads;
  int depth;
};

/// Two Linear layers, "0" and "3" (torchvision counts the activation and a dropout of 0 between them).
std::shared_ptr<Sequence> make_mlp_block(const TransformerSize& size) {
  const double bound = std::sqrt(6.0 / static_cast<double>(size.width + size.inner));
  const LinearOptions linear{.weight_start = Start{Start::Law::uniform, bound},
                             .bias_start = Start{Start::Law::normal, 1e-6}};
  auto result = std::make_shared<Sequence>();
  result->append("0", std::make_shared<Linear>(size.width, size.inner, linear));
  result->append("1", std::make_shared<Activation>(gelu));
  result->append("3", std::make_shared<Linear>(size.inner, size.width, linear));
  return result;
}

/// Attention and a perceptron, each on normalised tokens and added to them: [B, T, width] -> the same.
class EncoderBlock : public Block {
 public:
  explicit EncoderBlock(const TransformerSize& size)
      : first_norm_(register_child("ln_1", std::make_shared<LayerNorm>(size.width))),
        attention_(register_child("self_attention", std::make_shared<MultiheadAttention>(size.width, size.heads))),
        second_norm_(register_child("ln_2", std::make_shared<LayerNorm>(size.width))),
        mlp_(register_child("mlp", make_mlp_block(size))) {}
  at::Tensor forward(const at::Tensor& input) override {
    const at::Tensor x = input + attention_->attend(first_norm_->forward(input));
    return x + mlp_->forward(second_norm_->forward(x));
  }

 private:
  std::shared_ptr<LayerNorm> first_norm_;
  std::shared_ptr<MultiheadAttention> attention_;
  std::shared_ptr<LayerNorm> second_norm_;
  std::shared_ptr<Sequence> mlp_;
};

/// [B, T, width] -> the first token, [B, width].
class Encoder : public Block {
 public:
  Encoder(const TransformerSize& size, std::int64_t tokens)
      : positions_(register_child("pos_embedding", std::make_shared<PositionEmbedding>(tokens, size.width))),
        layers_(register_child("layers", std::make_shared<Sequence>())) {
    for (int i = 0; i < size.depth; ++i) {
      layers_->append("encoder_layer_" + std::to_string(i), std::make_shared<EncoderBlock>(size));
    }
    norm_ = register_child("ln", std::make_shared<LayerNorm>(size.width));
  }
  at::Tensor forward(const at::Tensor& input) override {
    // Each token is normalised by itself, so the others need not be.
    return norm_->forward(layers_->forward(positions_->forward(input)).select(1, 0));
  }

 private:
  std::shared_ptr<PositionEmbedding> positions_;
  std::shared_ptr<Sequence> layers_;
  std::shared_ptr<LayerNorm> norm_;
};

class VisionTransformer : public Classifier {
 public:
  VisionTransformer(const ModelArguments& arguments, const TransformerSize& size)
      : Classifier(arguments.input_shape, arguments.class_count) {
    const InputShape& shape = arguments.input_shape;
    token_ = register_child("class_token", std::make_shared<ClassToken>(size.width));
    const ConvolutionOptions patches{.kernel = size.patch,
                                     .stride = size.patch,
                                     .bias = true,
                                     .init = ConvolutionInit::lecun,
                                     .bias_start = Start{}};
    projection_ = register_child("conv_proj", std::make_shared<Conv2d>(shape.channels, size.width, patches));
    const std::int64_t tokens = (shape.height / size.patch) * (shape.width / size.patch) + 1;
    encoder_ = register_child("encoder", std::make_shared<Encoder>(size, tokens));
    add_head(size.width,
             {.name = "heads.head", .linear = {.weight_start = Start{}, .bias_start = Start{}}, .dropout = 0.0});
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    return encoder_->forward(token_->forward(projection_->forward(images).flatten(2).transpose(1, 2)));
  }

 private:
  std::shared_ptr<ClassToken> token_;
  std::shared_ptr<Conv2d> projection_;
  std::shared_ptr<Encoder> encoder_;
};

bool divides(std::int64_t patch, const InputShape& shape) {
  return shape.height % patch == 0 && shape.width % patch == 0;
}

/// The smallest of 2, 4, 8 and 16 that makes at most 64 patches, or the largest that divides the image. 0: none does.
std::int64_t small_patch(const InputShape& shape) {
  std::int64_t patch = 0;
  for (const std::int64_t side : {2, 4, 8, 16}) {
    if (!divides(side, shape)) continue;
    patch = side;
    if ((shape.height / side) * (shape.width / side) <= 64) break;
  }
  return patch;
}

std::unique_ptr<Classifier> make_vision_transformer(const ModelArguments& arguments, const char* name,
                                                    std::int64_t side, const TransformerSize& size) {
  const InputShape& shape = arguments.input_shape;
  if (!divides(side, shape)) {
    throw ConfigError(fmt::format(
        "model.name: {} cuts images into patches of {}x{} pixels, but the data set has {}x{} pixels; choose another "
        "model, or images whose sides are multiples of {} (data.image_size)",
        name, side, side, shape.height, shape.width, side));
  }
  return std::make_unique<VisionTransformer>(arguments, size);
}

}  // namespace

std::unique_ptr<Classifier> make_vit_b_16(const ModelArguments& arguments) {
  return make_vision_transformer(arguments, "vit_b_16", 16, {16, 768, 3072, 12, 12});
}

std::unique_ptr<Classifier> make_vit_tiny(const ModelArguments& arguments) {
  const std::int64_t patch = small_patch(arguments.input_shape);
  return make_vision_transformer(arguments, "vit_tiny", patch == 0 ? 2 : patch, {patch, 192, 768, 3, 12});
}

}  // namespace sage
