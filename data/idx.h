// MNIST and Fashion-MNIST in the IDX layout (LeCun, Cortes, Burges; Xiao, Rasul, Vollgraf, arXiv 1708.07747): a
// big-endian magic number, the sizes of the dimensions, then bytes. Plain or gzip-compressed.
#pragma once
#include <filesystem>

#include "data/format.h"

namespace sage {

/// train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (also with `.idx`
/// in place of `-idx`, and with `.gz`): 60,000 and 10,000 images [1, 28, 28], 10 classes. With allow_partial, fewer.
/// Throws DataError naming file and record.
Dataset read_mnist(const std::filesystem::path& folder, const ReadOptions& options);
Dataset read_fashion_mnist(const std::filesystem::path& folder, const ReadOptions& options);

}  // namespace sage
