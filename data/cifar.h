// CIFAR-10 and CIFAR-100 in their official binary layout (Krizhevsky, "Learning multiple layers of features from tiny
// images", 2009): records without a header, of one label byte (CIFAR-100: coarse, then fine) and 3,072 pixel bytes, the
// red, green and blue planes of a 32x32 image.
#pragma once
#include <filesystem>

#include "data/format.h"

namespace sage {

/// data_batch_1..5.bin and test_batch.bin, 10,000 records each; class names from batches.meta.txt. With allow_partial,
/// files may hold fewer records, and data_batch_2..5.bin may be missing. Throws DataError naming file and record.
Dataset read_cifar10(const std::filesystem::path& folder, const ReadOptions& options);

/// train.bin (50,000 records) and test.bin (10,000); class names from fine_label_names.txt or coarse_label_names.txt.
Dataset read_cifar100(const std::filesystem::path& folder, const ReadOptions& options);

}  // namespace sage
