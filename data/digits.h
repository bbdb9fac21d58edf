// The 8x8 handwritten digits that scikit-learn carries (the test part of UCI's "Optical recognition of handwritten
// digits", Alpaydin and Kaynak, 1998).
#pragma once
#include <filesystem>

#include "data/format.h"

namespace sage {

/// digits.csv.gz (or digits.csv): 1,797 rows of 64 grey values 0..16, row by row of the image, and the label. Images
/// are [1, 8, 8] bytes of 15 x the value (0..240), so that they fill the range of other data sets.
///
/// There is no official split: every fifth row (row % 5 == 0) is the test split (360 examples), the others, in order,
/// the train split (1,437). Throws DataError naming file and record (row, from 0).
Dataset read_digits(const std::filesystem::path& folder, const ReadOptions& options);

}  // namespace sage
