// One factory per architecture; registry.cpp lists them by name. Parameters are left at zero and one: make_model()
// initialises them. A `width` of 0 is the architecture's own.
#pragma once
#include <memory>

#include "models/classifier.h"

namespace sage {

/// The first layers of a network that has them in two forms.
enum class Stem {
  cifar,     ///< nothing that makes the image smaller: stride 1, no pooling
  imagenet,  ///< torchvision's
};

/// What a factory needs. `batch_norm` may be empty (see BatchNorm2d).
struct ModelArguments {
  InputShape input_shape;
  std::int64_t class_count = 0;
  std::int64_t width = 0;
  Stem stem = Stem::cifar;
  BatchNormFunction batch_norm = {};
};

/// Three blocks of 3x3 convolution, batch normalisation and ReLU with width, 2 width and 4 width channels (width 32),
/// 2x2 max pooling after the first two, then the mean over all pixels: 128 features. Sides of at least 4 pixels.
std::unique_ptr<Classifier> make_cnn(const ModelArguments& arguments);

/// Two hidden layers `fc1` and `fc2` of `width` units (256) with ReLU, on all pixel values.
std::unique_ptr<Classifier> make_mlp(const ModelArguments& arguments);

/// ResNet-20 for CIFAR (He, Zhang, Ren, Sun, "Deep residual learning for image recognition", section 4.2), with the
/// parameter-free shortcut of the paper (option A: every second pixel, new channels zero): 269,722 parameters at 10
/// classes, 64 features. Sides of at least 4 pixels.
std::unique_ptr<Classifier> make_resnet20(const ModelArguments& arguments);

/// ResNet-18, -34 and -50 (the same paper; -50 with the stride in the 3x3 convolution), names and, with the stem
/// `imagenet`, values as in torchvision. With the stem `cifar` (3x3, stride 1, no max pooling) ResNet-18 has 11,173,962
/// parameters at 3 channels and 10 classes. 512, 512 and 2,048 features. Sides of at least 8 pixels.
std::unique_ptr<Classifier> make_resnet18(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_resnet34(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_resnet50(const ModelArguments& arguments);

/// ResNeXt-50, 32 groups of 4 channels (Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep
/// neural networks"), as in torchvision; stems as ResNet-50. 2,048 features. Sides of at least 8 pixels.
std::unique_ptr<Classifier> make_resnext50_32x4d(const ModelArguments& arguments);

/// ResNeXt-29 (the same paper) with 32 groups of 4 channels, or 2, 4 or 8 groups of 64, in the form common for CIFAR: a
/// 1x1 stem, three stages of three blocks with G, 2 G and 4 G grouped channels (G: groups x their width), twice as many
/// at their outputs. 32x4d: 4,774,218 parameters at 3 channels and 10 classes. 8 G features. Sides of at least 4
/// pixels.
std::unique_ptr<Classifier> make_resnext29_32x4d(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_resnext29_2x64d(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_resnext29_4x64d(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_resnext29_8x64d(const ModelArguments& arguments);

/// MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov, Chen, 2018) as in torchvision, with dropout of 0.2 before the head
/// `classifier.1`. The stem `cifar` has stride 1 in the first convolution. 1,280 features. Sides of at least 4 pixels.
std::unique_ptr<Classifier> make_mobilenet_v2(const ModelArguments& arguments);

/// EfficientNet-B0 (Tan and Le, 2019) as in torchvision, with dropout of 0.2 before the head `classifier.1` and
/// stochastic depth up to 0.2. The stem `cifar` has stride 1 in the first convolution. 1,280 features. Sides of at
/// least 4 pixels.
std::unique_ptr<Classifier> make_efficientnet_b0(const ModelArguments& arguments);

/// Vision transformers (Dosovitskiy et al., "An image is worth 16x16 words", 2021) with torchvision's names. vit_b_16:
/// ViT-B/16 as there, on images whose sides are multiples of 16; 768 features. vit_tiny: 12 blocks of width 192 with 3
/// heads (the size of DeiT-Ti: Touvron et al., 2021), and patches of 2, 4, 8 or 16 pixels, the smallest that make at
/// most 64 (4 on 28x28 and 32x32, 8 on 64x64, 16 on larger images); sides are multiples of 2; 192 features. A side that
/// is no such multiple is a ConfigError.
std::unique_ptr<Classifier> make_vit_b_16(const ModelArguments& arguments);
std::unique_ptr<Classifier> make_vit_tiny(const ModelArguments& arguments);

}  // namespace sage
