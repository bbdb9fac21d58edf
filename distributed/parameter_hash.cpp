#include "distributed/parameter_hash.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_not.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"

namespace sage {
namespace {

constexpr std::int64_t piece = std::int64_t{1} << 18;  // values at a time
constexpr std::size_t names_told = 3;

/// Odd constants of MurmurHash3's 64-bit finalizer and of the golden ratio, as two's complement.
constexpr auto multiplier_1 = static_cast<std::int64_t>(0xff51afd7ed558ccdULL);
constexpr auto multiplier_2 = static_cast<std::int64_t>(0xc4ceb9fe1a85ec53ULL);
constexpr auto golden = static_cast<std::int64_t>(0x9e3779b97f4a7c15ULL);

/// x ^= x >> 33 on the 64 bits.
void fold(at::Tensor& values) {
  values.bitwise_xor_(values.bitwise_right_shift(33).bitwise_and_((std::int64_t{1} << 31) - 1));
}

/// The sum over all values v at place i of MurmurHash3's finalizer (fmix64) of v + (i + 1) golden, modulo 2^64.
at::Tensor hash_values(const at::Tensor& values) {
  at::Tensor sum = at::zeros({}, at::TensorOptions(at::kLong).device(values.device()));
  for (std::int64_t first = 0; first < values.numel(); first += piece) {
    const std::int64_t count = std::min(piece, values.numel() - first);
    at::Tensor mixed = at::arange(first + 1, first + 1 + count, sum.options()).mul_(golden);
    mixed.add_(values.narrow(0, first, count));
    fold(mixed);
    mixed.mul_(multiplier_1);
    fold(mixed);
    mixed.mul_(multiplier_2);
    fold(mixed);
    sum.add_(mixed.sum());
  }
  return sum;
}

/// Its bits as integers.
at::Tensor bits_of(const at::Tensor& tensor) {
  switch (tensor.element_size()) {
    case 1:
      return tensor.view(at::kByte);
    case 2:
      return tensor.view(at::kShort);
    case 4:
      return tensor.view(at::kInt);
    case 8:
      return tensor.view(at::kLong);
    default:
      throw InternalError("parameters of more than 8 bytes a value cannot be hashed");
  }
}

/// The ranks whose hash is not the most frequent one; all ranks where none is.
std::set<std::int64_t> odd_ranks(const std::vector<std::int64_t>& hashes) {
  std::map<std::int64_t, std::size_t> frequency;
  for (const auto hash : hashes) ++frequency[hash];
  std::size_t most = 0;
  for (const auto& [hash, count] : frequency) most = std::max(most, count);
  const bool clear = 2 * most > hashes.size();
  std::set<std::int64_t> odd;
  for (std::size_t rank = 0; rank < hashes.size(); ++rank) {
    if (!clear || frequency[hashes[rank]] != most) odd.insert(static_cast<std::int64_t>(rank));
  }
  return odd;
}

}  // namespace

at::Tensor parameter_hashes(std::span<const NamedTensor> tensors) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> hashes;
  for (const NamedTensor& named : tensors) hashes.push_back(hash_values(bits_of(named.tensor.detach()).reshape({-1})));
  return hashes.empty() ? at::zeros({0}, at::kLong) : at::stack(hashes);
}

std::uint64_t parameter_hash(std::span<const NamedTensor> tensors) {
  return static_cast<std::uint64_t>(hash_values(parameter_hashes(tensors)).item<std::int64_t>());
}

void check_same_parameters(std::span<const NamedTensor> tensors, Communicator& communicator) {
  if (communicator.size() == 1 || tensors.empty()) return;
  const at::NoGradGuard no_grad;
  const at::Tensor hashes = parameter_hashes(tensors);
  const at::Tensor total = hash_values(hashes);
  // The highest is the lowest: not(x) turns the order round.
  const at::Tensor extremes = at::stack({total, total.bitwise_not()});
  communicator.all_reduce_max(extremes);
  const at::Tensor told = extremes.cpu();
  if (told[0].item<std::int64_t>() == ~told[1].item<std::int64_t>()) return;

  const at::Tensor all = communicator.all_gather_rows(hashes.unsqueeze(0)).cpu();
  std::vector<std::string> names;
  std::set<std::int64_t> ranks;
  for (std::size_t index = 0; index < tensors.size(); ++index) {
    const at::Tensor column = all.select(1, static_cast<std::int64_t>(index)).contiguous();
    const auto* values = column.const_data_ptr<std::int64_t>();
    const std::vector<std::int64_t> of_ranks(values, values + communicator.size());
    if (std::all_of(of_ranks.begin(), of_ranks.end(), [&](std::int64_t hash) { return hash == of_ranks[0]; })) continue;
    names.push_back(tensors[index].name);
    ranks.merge(odd_ranks(of_ranks));
  }
  const std::size_t found = names.size();
  const std::string more = found > names_told ? fmt::format(" and {} more", found - names_told) : "";
  names.resize(std::min(found, names_told));
  const bool clear = static_cast<int>(ranks.size()) < communicator.size();
  throw CommunicationError(fmt::format(
      "the ranks no longer hold the same parameters: {} of {} tensors differ ({}{}), {} {}; what was trained since the "
      "last such comparison is worthless: go on from an earlier checkpoint with --resume, and look at the memory and "
      "the GPU of {} if it happens again",
      found, tensors.size(), fmt::join(names, ", "), more, clear ? "and the odd one is rank" : "between ranks",
      fmt::join(ranks, ", "), clear ? "that rank's host" : "their hosts"));
}

}  // namespace sage
