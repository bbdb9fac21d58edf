#include "core/linear_algebra.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "core/error.h"

namespace sage {
namespace {

// Columns of one product on the CPU: enough cores find work, and what is summed in float32 stays short enough to be
// accurate. When rows are rotated, as many values as stay in a core's cache. A GPU wants large products instead.
constexpr std::int64_t kGramColumns = 4096;
constexpr std::int64_t kRotationValues = 131072;
constexpr std::int64_t kDeviceColumns = 65536;
// Sums that are formed at the same time and then added up: never by the number of threads, so that results do not
// depend on it.
constexpr std::int64_t kMostSums = 32;
// Rows of one product where half of a symmetric matrix is enough: fewer would spare more of it, but slow products down.
constexpr std::int64_t kSymmetricRows = 128;
constexpr std::int64_t kNormColumns = 8192;

/// Columns to rotate at a time, where `rows` rows become fewer.
std::int64_t rotation_columns(at::Device device, std::int64_t rows) {
  return device.is_cpu() ? std::max<std::int64_t>(256, kRotationValues / std::max<std::int64_t>(1, rows))
                         : kDeviceColumns;
}

std::int64_t divide_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

/// Calls body(first, last) for parts of 0..count: on the CPU from several threads, each of which multiplies alone.
template <class Body>
void in_parallel(at::Device device, std::int64_t count, const Body& body) {
  const auto without_gradients = [&](std::int64_t first, std::int64_t last) {
    const at::NoGradGuard no_grad;  // holds for one thread
    body(first, last);
  };
  if (device.is_cpu()) {
    at::parallel_for(0, count, 1, without_gradients);
  } else {
    without_gradients(0, count);
  }
}

/// Calls body(first column, columns) for the blocks first_block to last_block - 1 of a matrix.
template <class Body>
void for_blocks(std::int64_t first_block, std::int64_t last_block, std::int64_t block, std::int64_t columns,
                const Body& body) {
  for (std::int64_t first = first_block * block; first < std::min(columns, last_block * block); first += block) {
    body(first, std::min(block, columns - first));
  }
}

/// left right^T is what `sum` (float64) grows by.
struct Product {
  at::Tensor left, right, sum;
};

void add_products(const std::vector<Product>& products, bool precise) {
  const at::Device device = products[0].left.device();
  const std::int64_t columns = products[0].left.size(1), block = device.is_cpu() ? kGramColumns : kDeviceColumns;
  if (columns == 0) return;  // a rank may hold no column of a sketch that is spread over ranks
  const std::int64_t blocks = divide_up(columns, block), in_a_sum = divide_up(blocks, kMostSums);
  std::vector<std::vector<at::Tensor>> sums(static_cast<std::size_t>(divide_up(blocks, in_a_sum)));
  in_parallel(device, static_cast<std::int64_t>(sums.size()), [&](std::int64_t begin, std::int64_t end) {
    const at::NoTF32Guard full_precision;
    for (std::int64_t i = begin; i < end; ++i) {
      std::vector<at::Tensor>& mine = sums[static_cast<std::size_t>(i)];
      for (const Product& product : products) mine.push_back(at::zeros_like(product.sum, at::MemoryFormat::Contiguous));
      for_blocks(i * in_a_sum, (i + 1) * in_a_sum, block, columns, [&](std::int64_t first, std::int64_t count) {
        for (std::size_t p = 0; p < products.size(); ++p) {
          at::Tensor left = products[p].left.narrow(1, first, count), right = products[p].right.narrow(1, first, count);
          if (precise) {
            left = left.to(at::kDouble);
            right = right.to(at::kDouble);
          }
          mine[p].add_(at::mm(left, right.t()));
        }
      });
    }
  });
  for (const std::vector<at::Tensor>& part : sums) {
    for (std::size_t p = 0; p < products.size(); ++p) at::Tensor(products[p].sum).add_(part[p]);
  }
}

/// The sum of squares, in float64.
template <class Scalar>
double sum_of_squares(const Scalar* values, std::int64_t count) {
  constexpr std::int64_t kLanes = 8;  // sums that do not wait for each other
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
#pragma GCC unroll 8
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const auto value = static_cast<double>(values[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// Rows whose values lie one after another in main memory, and how far apart the rows are.
template <class Scalar>
struct RowPointer {
  explicit RowPointer(const at::Tensor& rows) : first(rows.const_data_ptr<Scalar>()), stride(rows.stride(0)) {}
  const Scalar* first;
  std::int64_t stride;
};

bool can_point_to(const at::Tensor& rows) {
  return rows.device().is_cpu() && rows.stride(1) == 1 &&
         (rows.scalar_type() == at::kFloat || rows.scalar_type() == at::kDouble);
}

/// Squared norms of `rows`, which are copied to `to` on the way where that is not null.
template <class Scalar>
at::Tensor squared_norms_on_the_way(const at::Tensor& rows, const at::Tensor* to) {
  const std::int64_t columns = rows.size(1), blocks = divide_up(columns, kNormColumns);
  at::Tensor sums = at::empty({rows.size(0), blocks}, at::kDouble);
  double* const sum = sums.mutable_data_ptr<double>();
  const RowPointer<Scalar> source(rows), target(to == nullptr ? rows : *to);
  in_parallel(rows.device(), sums.numel(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = i / blocks, first = i % blocks * kNormColumns;
      const std::int64_t count = std::min(kNormColumns, columns - first);
      const Scalar* const values = source.first + row * source.stride + first;
      if (to != nullptr) {
        std::copy_n(values, count, const_cast<Scalar*>(target.first) + row * target.stride + first);
      }
      sum[i] = sum_of_squares(values, count);
    }
  });
  return sums.sum(1);
}

}  // namespace

at::Tensor row_squared_norms(const at::Tensor& rows) {
  const at::NoGradGuard no_grad;
  if (can_point_to(rows)) {
    return rows.scalar_type() == at::kFloat ? squared_norms_on_the_way<float>(rows, nullptr)
                                            : squared_norms_on_the_way<double>(rows, nullptr);
  }
  at::Tensor norms = at::zeros({rows.size(0)}, rows.options().dtype(at::kDouble));
  for_blocks(0, divide_up(rows.size(1), kNormColumns), kNormColumns, rows.size(1),
             [&](std::int64_t first, std::int64_t count) {
               norms.add_(rows.narrow(1, first, count).to(at::kDouble).square().sum(1));
             });
  return norms.cpu();
}

at::Tensor copy_rows(const at::Tensor& rows, at::Tensor to) {
  require(rows.sizes() == to.sizes(), "copy_rows: as much room as there are rows");
  if (can_point_to(rows) && can_point_to(to) && rows.scalar_type() == to.scalar_type()) {
    return rows.scalar_type() == at::kFloat ? squared_norms_on_the_way<float>(rows, &to)
                                            : squared_norms_on_the_way<double>(rows, &to);
  }
  to.copy_(rows);
  return row_squared_norms(to);
}

at::Tensor cross_gram(const at::Tensor& a, const at::Tensor& b, bool precise) {
  require(a.size(1) == b.size(1), "cross_gram: the matrices must have the same number of columns");
  const at::NoGradGuard no_grad;
  at::Tensor gram = at::zeros({a.size(0), b.size(0)}, a.options().dtype(at::kDouble));
  if (gram.numel() > 0) add_products({{a, b, gram}}, precise);
  return gram.cpu();
}

at::Tensor lower_gram(const at::Tensor& rows, std::int64_t first, bool precise) {
  const std::int64_t n = rows.size(0);
  require(first >= 0 && first <= n, "lower_gram: there is no such row");
  const at::NoGradGuard no_grad;
  at::Tensor gram = at::zeros({n - first, n}, rows.options().dtype(at::kDouble));
  const std::int64_t parts = std::max<std::int64_t>(1, (n - first) / kSymmetricRows);
  std::vector<Product> products;
  for (std::int64_t i = 0; i < parts && first < n; ++i) {
    const std::int64_t from = first + i * (n - first) / parts, to = first + (i + 1) * (n - first) / parts;
    products.push_back({rows.narrow(0, from, to - from), rows.narrow(0, 0, to),
                        gram.narrow(0, from - first, to - from).narrow(1, 0, to)});
  }
  if (!products.empty()) add_products(products, precise);
  return gram.cpu();
}

at::Tensor rotate_rows(const at::Tensor& rotation, std::span<const at::Tensor> parts) {
  require(!parts.empty(), "rotate_rows: nothing to rotate");
  at::Tensor rotated = at::empty({rotation.size(0), parts[0].size(1)}, parts[0].options());
  rotate_rows(rotation, parts, rotated);
  return rotated;
}

void rotate_rows(const at::Tensor& rotation, std::span<const at::Tensor> parts, at::Tensor to) {
  const at::NoGradGuard no_grad;
  const std::int64_t columns = to.size(1);
  std::vector<at::Tensor> factors, rows;
  std::int64_t row = 0;
  for (const at::Tensor& part : parts) {
    if (part.size(0) > 0) {
      factors.push_back(rotation.narrow(1, row, part.size(0)).contiguous().to(to.device(), to.scalar_type()));
      rows.push_back(part);
    }
    row += part.size(0);
  }
  require(row == rotation.size(1) && to.size(0) == rotation.size(0), "rotate_rows: the rotation does not fit the rows");
  if (to.numel() == 0) return;
  if (rows.empty()) {
    to.zero_();
    return;
  }
  const std::int64_t width = rotation_columns(to.device(), rotation.size(1));
  in_parallel(to.device(), divide_up(columns, width), [&](std::int64_t begin, std::int64_t end) {
    const at::NoTF32Guard full_precision;
    for_blocks(begin, end, width, columns, [&](std::int64_t first, std::int64_t count) {
      at::Tensor block = to.narrow(1, first, count);
      at::mm_out(block, factors[0], rows[0].narrow(1, first, count));
      for (std::size_t i = 1; i < rows.size(); ++i) block.addmm_(factors[i], rows[i].narrow(1, first, count));
    });
  });
}

void rotate_rows_in_place(const at::Tensor& rotation, at::Tensor rows) {
  require(rotation.size(1) <= rows.size(0) && rotation.size(0) <= rotation.size(1),
          "rotate_rows_in_place: the rotation does not fit the rows");
  const at::NoGradGuard no_grad;
  const at::Tensor factor = rotation.to(rows.device(), rows.scalar_type());
  const at::Tensor from = rows.narrow(0, 0, rotation.size(1)), to = rows.narrow(0, 0, rotation.size(0));
  if (to.size(0) == 0) return;
  const std::int64_t columns = rows.size(1), width = rotation_columns(rows.device(), rotation.size(1));
  in_parallel(rows.device(), divide_up(columns, width), [&](std::int64_t begin, std::int64_t end) {
    const at::NoTF32Guard full_precision;
    at::Tensor turned = at::empty({to.size(0), std::min(width, columns)}, rows.options());
    for_blocks(begin, end, width, columns, [&](std::int64_t first, std::int64_t count) {
      at::Tensor block = turned.narrow(1, 0, count);
      at::mm_out(block, factor, from.narrow(1, first, count));
      to.narrow(1, first, count).copy_(block);
    });
  });
}

SymmetricEigen symmetric_eigen(const at::Tensor& matrix) {
  if (!at::isfinite(matrix).all().item<bool>()) {
    throw TrainingError(
        "the Gram matrix of the gradients is not finite: their norms exceed 1e19, more than float32 products hold; "
        "lower the learning rate or check the loss");
  }
  auto [values, vectors] = at::linalg_eigh(matrix, "L");
  return {values.flip(0).contiguous(), vectors.flip(1).contiguous()};
}

}  // namespace sage
