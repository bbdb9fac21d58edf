#include "selection/shared_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "selection/consensus.h"

namespace sage {
namespace {

typedef double Vector __attribute__((vector_size(16), aligned(8), may_alias));
constexpr std::int64_t lanes = 2, vectors = 4;

template <bool IsDistance>
double combine(const double* a, const double* b, std::int64_t width) {
  Vector sums[vectors] = {};
  std::int64_t i = 0;
  for (; i + lanes * vectors <= width; i += lanes * vectors) {
    for (std::int64_t v = 0; v < vectors; ++v) {
      const Vector x = reinterpret_cast<const Vector*>(a + i + v * lanes)[0];
      const Vector y = reinterpret_cast<const Vector*>(b + i + v * lanes)[0];
      sums[v] += IsDistance ? (x - y) * (x - y) : x * y;
    }
  }
  double rest = 0.0;
  for (; i < width; ++i) rest += IsDistance ? (a[i] - b[i]) * (a[i] - b[i]) : a[i] * b[i];
  const Vector sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return (sum[0] + sum[1]) + rest;
}

template <bool IsDistance>
void combine_all(const at::Tensor& rows, const at::Tensor& row, std::span<double> out) {
  require(rows.dim() == 2 && rows.scalar_type() == at::kDouble && rows.is_contiguous() && row.is_contiguous() &&
              row.numel() == rows.size(1) && row.scalar_type() == at::kDouble &&
              static_cast<std::int64_t>(out.size()) == rows.size(0),
          "rows and row must be contiguous float64 of one width, with a place for each result");
  const std::int64_t width = rows.size(1);
  const double* first = rows.const_data_ptr<double>();
  const double* other = row.const_data_ptr<double>();
  const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
  at::parallel_for(0, rows.size(0), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[static_cast<std::size_t>(i)] = combine<IsDistance>(first + i * width, other, width);
    }
  });
}

}  // namespace

void dot_products(const at::Tensor& rows, const at::Tensor& row, std::span<double> out) {
  combine_all<false>(rows, row, out);
}

void squared_distances(const at::Tensor& rows, const at::Tensor& row, std::span<double> out) {
  combine_all<true>(rows, row, out);
}

at::Tensor sum_of_rows(const at::Tensor& rows, Communicator& communicator) {
  const at::Tensor sum = rows.sum(0);
  all_reduce_sum_anywhere(communicator, sum);
  return sum;
}

SharedRows::SharedRows(const Points& points, at::Tensor rows, Communicator& communicator)
    : positions_(points.positions), rows_(std::move(rows)), communicator_(communicator) {
  require(rows_.size(0) == points.count(), "one row for each point");
  taken_.assign(positions_.size(), false);
}

SharedRows::Found SharedRows::take_best(std::span<const double> values, double note) {
  require(values.size() == positions_.size(), "one value for each point");
  std::int64_t best = -1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (taken_[i] || !(values[i] > (best < 0 ? kNotWanted : values[static_cast<std::size_t>(best)]))) continue;
    best = static_cast<std::int64_t>(i);
  }
  Found found;
  int owner = 0;
  if (communicator_.size() == 1) {
    found.note = note;
    if (best >= 0) {
      found.value = values[static_cast<std::size_t>(best)];
      found.position = positions_[static_cast<std::size_t>(best)];
    }
  } else {
    const at::Tensor offers = at::zeros({communicator_.size(), 3}, at::kDouble);
    double* mine = offers.mutable_data_ptr<double>() + 3 * communicator_.rank();
    mine[0] = best >= 0 ? values[static_cast<std::size_t>(best)] : kNotWanted;
    mine[1] = best >= 0 ? static_cast<double>(positions_[static_cast<std::size_t>(best)]) : -1.0;
    mine[2] = note;
    all_reduce_sum_anywhere(communicator_, offers);
    const double* offer = offers.const_data_ptr<double>();
    found.note = offer[2];
    for (int rank = 0; rank < communicator_.size(); ++rank, offer += 3) {
      const auto position = static_cast<std::int64_t>(offer[1]);
      const bool is_better = position >= 0 && (found.position < 0 || offer[0] > found.value ||
                                               (offer[0] == found.value && position < found.position));
      if (!is_better) continue;
      found.value = offer[0];
      found.position = position;
      owner = rank;
    }
  }
  if (found.position < 0) return found;
  if (owner == communicator_.rank()) {
    found.local = best;
    found.row = rows_[best];
    taken_[static_cast<std::size_t>(best)] = true;
  }
  if (communicator_.size() > 1) {
    const at::TensorOptions options = at::TensorOptions(at::kDouble).device(communicator_.device());
    const at::Tensor row =
        found.local >= 0 ? found.row.contiguous().to(communicator_.device()) : at::empty({rows_.size(1)}, options);
    communicator_.broadcast(row, owner);
    found.row = row.cpu();
  }
  return found;
}

}  // namespace sage
