#include "distributed/parameter_hash.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "support/mpi.h"

namespace sage {
namespace {

/// The same on every rank; of several dtypes, one longer than a piece, one empty, one with a NaN.
std::vector<NamedTensor> parameters() {
  RandomStream stream(3, "parameters", 0);
  std::vector<NamedTensor> list{{"layer1.weight", at::empty({300, 1000})},
                                {"layer1.bias", at::empty({300})},
                                {"layer2.weight", at::empty({4, 3, 5, 5})},
                                {"none", at::empty({0})}};
  for (auto& named : list) {
    auto* values = named.tensor.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < named.tensor.numel(); ++i) values[i] = static_cast<float>(stream.uniform());
  }
  list[1].tensor[7] = std::numeric_limits<float>::quiet_NaN();
  list.push_back({"layer2.half", list[1].tensor.to(at::kBFloat16)});
  list.push_back({"steps", at::full({}, 12, at::kLong)});
  list.push_back({"mask", at::full({9}, true, at::kBool)});
  list.push_back({"double", at::full({3}, 0.1, at::kDouble)});
  return list;
}

void flip(const at::Tensor& tensor, std::size_t byte, int bit) {
  static_cast<unsigned char*>(tensor.data_ptr())[byte] ^= static_cast<unsigned char>(1U << bit);
}

/// The definition, value by value.
std::uint64_t slow_hash(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  const auto width = static_cast<std::size_t>(flat.element_size());
  const auto* bytes = static_cast<const unsigned char*>(flat.const_data_ptr());
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(flat.numel()); ++i) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes + i * width, width);
    const std::uint64_t sign = std::uint64_t{1} << (8 * width - 1);
    if (width > 1) value = (value ^ sign) - sign;  // bits as a signed integer; of one byte: unsigned
    std::uint64_t h = value + (i + 1) * 0x9e3779b97f4a7c15ULL;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdULL;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53ULL;
    h ^= h >> 33;
    sum += h;
  }
  return sum;
}

TEST(ParameterHash, IsItsDefinition) {
  const auto list = parameters();
  const at::Tensor hashes = parameter_hashes(list);
  for (std::size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(static_cast<std::uint64_t>(hashes[static_cast<std::int64_t>(i)].item<std::int64_t>()),
              slow_hash(list[i].tensor))
        << list[i].name;
  }
  EXPECT_EQ(parameter_hash(list), slow_hash(hashes));
}

TEST(ParameterHash, SeesEveryBitAndEveryPlace) {
  auto list = parameters();
  const std::uint64_t before = parameter_hash(list);
  EXPECT_EQ(parameter_hash(parameters()), before);
  for (const auto& named : list) {
    for (std::size_t byte = 0; byte < std::min<std::size_t>(named.tensor.nbytes(), 16); ++byte) {
      for (int bit = 0; bit < 8; ++bit) {
        flip(named.tensor, byte, bit);
        EXPECT_NE(parameter_hash(list), before) << named.name << " byte " << byte << " bit " << bit;
        flip(named.tensor, byte, bit);
      }
    }
  }
  const at::Tensor last = list[0].tensor.view({-1}).narrow(0, 299990, 10);
  flip(last, 3, 7);
  EXPECT_NE(parameter_hash(list), before) << "a sign at the end of a long tensor";
  flip(last, 3, 7);
  EXPECT_EQ(parameter_hash(list), before);
  // Two values, two tensors exchanged.
  const at::Tensor bias = list[1].tensor.clone();
  list[1].tensor = bias.flip(0).contiguous();
  EXPECT_NE(parameter_hash(list), before);
  list[1].tensor = bias;
  std::swap(list[1], list[2]);
  EXPECT_NE(parameter_hash(list), before);
}

TEST(ParameterHash, DoesNotSeeTheMemoryOrder) {
  auto list = parameters();
  const std::uint64_t before = parameter_hash(list);
  list[2].tensor = list[2].tensor.contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_EQ(parameter_hash(list), before);
  list[0].tensor = list[0].tensor.t().contiguous().t();
  EXPECT_EQ(parameter_hash(list), before);
}

TEST(ParameterHash, EqualParametersPassAndCostOneSmallCollective) {
  const auto list = parameters();
  world().reset_traffic();
  check_same_parameters(list, world());
  EXPECT_EQ(world().traffic().calls, world().size() > 1 ? 1 : 0);
  EXPECT_LE(world().traffic().bytes_sent, 16);
}

TEST(ParameterHash, OneFlippedBitIsFoundOnEveryRank) {
  if (world().size() == 1) {
    check_same_parameters(parameters(), world());
    return;
  }
  for (int odd = 0; odd < world().size(); ++odd) {
    const auto list = parameters();
    if (world().rank() == odd) {
      flip(list[2].tensor, 77, 0);
      flip(list[4].tensor, 1, 3);
    }
    std::string message;
    try {
      check_same_parameters(list, world());
    } catch (const CommunicationError& error) {
      message = error.what();
    }
    EXPECT_NE(message.find("2 of 8 tensors differ (layer2.weight, layer2.half)"), std::string::npos) << message;
    const std::string culprit =
        world().size() == 2 ? "between ranks 0, 1;" : "and the odd one is rank " + std::to_string(odd) + ";";
    EXPECT_NE(message.find(culprit), std::string::npos) << message;
    // The same text on all ranks, so that one of them prints it.
    const auto texts = world().all_gather_strings(message);
    EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()).size(), 1U);
  }
}

}  // namespace
}  // namespace sage
