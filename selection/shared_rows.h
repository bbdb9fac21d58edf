// Greedy choice among points that are spread over ranks: which one all agree on, and what it looks like.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "distributed/communicator.h"
#include "selection/group_selection.h"

namespace sage {

/// out[i] = <rows_i, row> and ||rows_i - row||^2 for float64 rows [n, width] and row [width]. The order of additions is
/// fixed and does not depend on n: a row's value has the same bits wherever it is computed, and equal rows have
/// distance 0.
void dot_products(const at::Tensor& rows, const at::Tensor& row, std::span<double> out);
void squared_distances(const at::Tensor& rows, const at::Tensor& row, std::span<double> out);

/// [sum over ranks of] the sum of rows, float64 [width]. ALL ranks of the communicator.
at::Tensor sum_of_rows(const at::Tensor& rows, Communicator& communicator);

/// Values that say how much a point is wanted; -infinity: not at all.
constexpr double kNotWanted = -std::numeric_limits<double>::infinity();

/// Points with `rows` [n, width] (float64), a part on each rank of a communicator.
class SharedRows {
 public:
  SharedRows(const Points& points, at::Tensor rows, Communicator& communicator);

  struct Found {
    std::int64_t position = -1;  ///< among the candidates; -1: nothing is wanted
    double value = kNotWanted;
    std::int64_t local = -1;  ///< row of this rank; -1: it is another's
    at::Tensor row;           ///< [width], on every rank
    double note = 0.0;        ///< what the lowest rank said
  };
  /// ALL ranks: the point with the largest of `values` (n of this rank), ties to the lower position; it is marked as
  /// taken, and no longer found. `note` of the lowest rank comes back on all, so that what they decide by it is one.
  Found take_best(std::span<const double> values, double note = 0.0);
  /// Makes a point of this rank that was taken free again.
  void release(std::int64_t local) { taken_[static_cast<std::size_t>(local)] = false; }

  const at::Tensor& rows() const { return rows_; }
  std::int64_t count() const { return rows_.size(0); }

 private:
  const std::vector<std::int64_t>& positions_;
  at::Tensor rows_;
  Communicator& communicator_;
  std::vector<bool> taken_;
};

}  // namespace sage
