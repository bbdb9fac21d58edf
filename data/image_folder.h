// Data sets that are folders of JPEG and PNG files: TinyImageNet, ImageNet, Caltech-256, and any folder of photos.
#pragma once
#include <filesystem>

#include "data/format.h"

namespace sage {

/// Example ids count the files in the order of (class, file name), names compared byte by byte. Classes are in the
/// order of wnids.txt for TinyImageNet, of their folders' names elsewhere. Files and folders whose name begins with a
/// dot, and files that do not end in .jpg, .jpeg or .png (in any case), are passed over.
///
/// Images become RGB of one size (options.image_size, else the data set's own): in memory where that is asked for and
/// takes at most largest_decoded_set, else read from their files for each batch, with ImageNet's mean and deviation.
///
/// All throw DataError that names the folder, file or line for: no class, a class without an image, a class to test on
/// that is not trained on, an annotation of an unknown class or a missing file, an image without one, and (unless
/// options.skip_corrupt) an image that does not decode. Memory: names and labels, about 50 bytes for each image.

/// wnids.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG with val/val_annotations.txt (or val/<wnid>/...),
/// optionally words.txt with the names of the classes. 64 x 64 pixels, always in memory unless options say another
/// size.
Dataset read_tiny_imagenet(const std::filesystem::path& folder, const ReadOptions& options);

/// train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or val/*.JPEG with a file of labels, in val or above it: val_labels.txt,
/// val.txt, val_annotations.txt, LOC_val_solution.csv or imagenet_2012_validation_synset_labels.txt. Each of its lines
/// has a file and its class (the wnid, or its number in sorted order from 0), or the class alone, for the files in
/// order. Optionally words.txt or LOC_synset_mapping.txt with the names of the classes. 224 x 224.
Dataset read_imagenet(const std::filesystem::path& folder, const ReadOptions& options);

/// <number>.<class>/*.jpg, no split: of each class a fifth (rounded, at least one) is drawn to test on, the same for
/// all seeds of a run. 224 x 224.
Dataset read_caltech256(const std::filesystem::path& folder, const ReadOptions& options);

/// train/<class>/* and val/<class>/* (or test/). An empty folder val means that there is nothing to test on. 224 x 224.
Dataset read_image_folder(const std::filesystem::path& folder, const ReadOptions& options);

/// Whether `folder` looks like one of these data sets.
bool looks_like_image_folder(const std::filesystem::path& folder);
bool looks_like_caltech256(const std::filesystem::path& folder);

/// Bytes up to which a data set is held decoded.
inline constexpr std::int64_t largest_decoded_set = std::int64_t{16} << 30;

/// Mean and deviation that networks for ImageNet are trained with everywhere (He et al. 2015 and torchvision).
inline constexpr float imagenet_mean[] = {0.485f, 0.456f, 0.406f}, imagenet_deviation[] = {0.229f, 0.224f, 0.225f};

}  // namespace sage
