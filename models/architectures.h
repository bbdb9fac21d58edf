// One factory per architecture; registry.cpp lists them by name. Parameters are left at zero and one: make_model()
// initialises them. A `width` of 0 is the architecture's own.
#pragma once
#include <memory>

#include "models/classifier.h"

namespace sage {

/// What a factory needs. `batch_norm` may be empty (see BatchNorm2d).
struct ModelArguments {
  InputShape input_shape;
  std::int64_t class_count = 0;
  std::int64_t width = 0;
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

/// ResNet-18 (the same paper) with a stem for small images: a 3x3 convolution of stride 1 and no max pooling. Names as
/// in torchvision. 11,173,962 parameters at 3 channels and 10 classes, 512 features. Sides of at least 8 pixels.
std::unique_ptr<Classifier> make_resnet18(const ModelArguments& arguments);

/// ResNeXt-29, 32 groups of 4 channels (Xie, Girshick, Dollar, Tu, He, "Aggregated residual transformations for deep
/// neural networks"), in the form common for CIFAR: a 1x1 stem, three stages of three blocks with 128, 256 and 512
/// grouped channels, twice as many at their outputs. 4,774,218 parameters at 3 channels and 10 classes, 1,024 features.
/// Sides of at least 4 pixels.
std::unique_ptr<Classifier> make_resnext29_32x4d(const ModelArguments& arguments);

}  // namespace sage
