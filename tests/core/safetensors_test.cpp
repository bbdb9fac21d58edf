#include "core/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "core/checksum.h"
#include "core/error.h"
#include "core/random.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::bytes_of;
using testing::contains;
using testing::message_of;
using testing::put_bytes;

TEST(Checksum, PublishedValues) {
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283U);  // the usual check value
  const std::string zeros(32, '\0'), ones(32, '\xff');
  EXPECT_EQ(crc32c(zeros.data(), 32), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(ones.data(), 32), 0x62A8AB43U);
  EXPECT_EQ(crc32c("", 0), 0U);
}

TEST(Checksum, EqualToBitByBitAndInPieces) {
  RandomStream random(1, "bytes");
  std::string bytes(1000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (const std::size_t length : {0, 1, 7, 8, 9, 63, 1000}) {
    std::uint32_t slow = 0xFFFFFFFF;
    for (std::size_t i = 0; i < length; ++i) {
      slow ^= static_cast<unsigned char>(bytes[i]);
      for (int bit = 0; bit < 8; ++bit) slow = (slow >> 1) ^ ((slow & 1) ? 0x82F63B78U : 0U);
    }
    EXPECT_EQ(crc32c(bytes.data(), length), ~slow) << length;
  }
  for (const std::size_t cut : {1, 13, 500, 999}) {
    EXPECT_EQ(crc32c(bytes.data() + cut, 1000 - cut, crc32c(bytes.data(), cut)), crc32c(bytes.data(), 1000));
  }
}

class Safetensors : public testing::TemporaryFolder {
 protected:
  std::filesystem::path path() const { return folder_ / "file.safetensors"; }
  /// A file with this header and `data` bytes after it.
  void craft(const std::string& header, std::size_t data) {
    const std::uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    put_bytes(path(), bytes + header + std::string(data, '\1'));
  }
  std::string refusal(Checksums checksums = Checksums::if_present) {
    return message_of<CheckpointError>([&] { read_safetensors(path(), checksums); });
  }
};

bool same(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         (x.nbytes() == 0 ||  // no memory, which memcmp may not be given
          std::memcmp(x.const_data_ptr(), y.const_data_ptr(), static_cast<std::size_t>(x.nbytes())) == 0);
}

std::vector<NamedTensor> one_of_each() {
  const at::Tensor numbers = at::arange(-3, 4, at::TensorOptions().dtype(at::kDouble)).div(3.0);
  std::vector<NamedTensor> all;
  all.push_back({"boolean", numbers.gt(0)});
  all.push_back({"bytes", at::arange(7, at::TensorOptions().dtype(at::kByte))});
  all.push_back({"half", numbers.to(at::kHalf)});
  all.push_back({"bfloat", numbers.to(at::kBFloat16)});
  all.push_back({"single", numbers.to(at::kFloat)});
  all.push_back({"int", numbers.mul(1000).to(at::kInt)});
  all.push_back({"double", numbers});
  all.push_back({"long", numbers.mul(1e15).to(at::kLong)});
  all.push_back({"scalar", numbers.to(at::kFloat).select(0, 2)});
  all.push_back({"empty", at::empty({3, 0, 2}, at::kFloat)});
  all.push_back({"transposed", at::arange(12, at::TensorOptions().dtype(at::kFloat)).view({3, 4}).t()});
  all.push_back({"name \"quoted\" \\ \xC3\xA9", at::ones({2, 3}, at::kFloat)});
  return all;
}

TEST_F(Safetensors, HoldsEveryTypeAndAllMetadata) {
  const auto tensors = one_of_each();
  const std::map<std::string, std::string> metadata{{"plain", "text"},
                                                    {"\xE2\x82\xAC", "line\nbreak \"quoted\""},
                                                    {"trap", "\"sage.crc32c.header\":\"12345678\""},
                                                    {"none", ""}};
  write_safetensors(path(), tensors, metadata);
  const TensorFile file = read_safetensors(path());
  EXPECT_EQ(file.metadata, metadata);
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const NamedTensor& written : tensors) {
    const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                    [&](const NamedTensor& read) { return read.name == written.name; });
    ASSERT_NE(found, file.tensors.end()) << written.name;
    EXPECT_TRUE(same(found->tensor, written.tensor)) << written.name;
    EXPECT_TRUE(found->tensor.is_contiguous());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(found->tensor.const_data_ptr()) % 16, 0U) << written.name;
  }
}

TEST_F(Safetensors, AnEmptyFileIsOne) {
  write_safetensors(path(), {});
  const TensorFile file = read_safetensors(path());
  EXPECT_TRUE(file.tensors.empty());
  EXPECT_TRUE(file.metadata.empty());
}

TEST_F(Safetensors, TheSameContentGivesTheSameBytes) {
  write_safetensors(path(), one_of_each(), {{"a", "b"}});
  const std::string first = bytes_of(path());
  write_safetensors(path(), one_of_each(), {{"a", "b"}});
  EXPECT_EQ(bytes_of(path()), first);
}

TEST_F(Safetensors, EverySingleFlippedBitIsFound) {
  write_safetensors(path(), one_of_each(), {{"state", "{\"epoch\": 3}"}});
  const std::string whole = bytes_of(path());
  std::size_t accepted = 0;
  std::fstream file(path(), std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::size_t position, int byte) {
    file.seekp(static_cast<std::streamoff>(position)).put(static_cast<char>(byte)).flush();
    ASSERT_TRUE(file.good());
  };
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    put(bit / 8, whole[bit / 8] ^ (1 << (bit % 8)));
    if (!contains(refusal(Checksums::required), path().string())) ++accepted;
    put(bit / 8, whole[bit / 8]);
  }
  EXPECT_EQ(accepted, 0U) << "of " << whole.size() * 8;
  EXPECT_EQ(bytes_of(path()), whole);
  EXPECT_EQ(refusal(Checksums::required), "");
}

TEST_F(Safetensors, EveryTruncationAndAnythingAppendedIsFound) {
  write_safetensors(path(), one_of_each(), {{"state", "{}"}});
  const std::string whole = bytes_of(path());
  for (std::size_t length = 0; length < whole.size(); ++length) {
    put_bytes(path(), whole.substr(0, length));
    EXPECT_NE(refusal(Checksums::required), "") << length;
  }
  put_bytes(path(), whole + '\0');
  EXPECT_TRUE(contains(refusal(Checksums::required), "appended"));
}

TEST_F(Safetensors, MalformedHeadersAreNamed) {
  struct Case {
    std::string header;
    std::size_t data;
    std::string cause;
  };
  const std::string f32 = R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  const std::vector<Case> cases{
      {"{}", 0, ""},
      {"{\"a\":" + f32 + "}", 8, ""},
      {"{\"a\":" + f32 + "}   ", 8, ""},
      {"[]", 0, "not a JSON object"},
      {"{\"a\":" + f32 + "} x", 8, "not valid JSON"},
      {"{\"a\":" + f32 + ",\"a\":" + f32 + "}", 8, "names 'a' twice"},
      {R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", 8, "names 'shape' twice"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", 8, "exactly"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "exactly"},
      {R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})", 8, "not known"},
      {R"({"a":{"dtype":7,"shape":[1],"data_offsets":[0,8]}})", 8, "not known"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "list of sizes"},
      {R"({"a":{"dtype":"F32","shape":{},"data_offsets":[0,8]}})", 8, "shape"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "do not hold the 12 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "do not hold"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}})", 8, "pair"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8, "pair"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "too large"},
      {R"({"a":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}})", 0, "too large"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8, "too large"},
      {R"({"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}})", 8, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "gap or an overlap"},
      {"{\"a\":" + f32 + ",\"b\":" + f32 + "}", 8, "gap or an overlap"},
      {R"({"a":{"dtype":"U8","shape":[6],"data_offsets":[0,6]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       8, "gap or an overlap"},
      {"{\"a\":" + f32 + "}", 9, "appended"},
      {"{\"a\":" + f32 + "}", 7, "truncated"},
      {R"({"__metadata__":[],"a":)" + f32 + "}", 8, "__metadata__"},
      {R"({"__metadata__":{"k":1},"a":)" + f32 + "}", 8, "not a string"},
      {R"({"__metadata__":{"sage.crc32c.header":"00000000"}})", 0, "no checksums"},
      {R"({"__metadata__":{"sage.crc32c.headers":"00000000"}})", 0, "'sage.crc32c.headers' are not known"},
      {R"({"a":[[[[[[1]]]]]]})", 0, "nested deeper than 3"},
      {"{\"a\":\"\xff\xfe\"}", 0, "not valid JSON"},
      {"{\"a\\u0000b\":" + f32 + "}", 8, "'a\\x00b': the name"},
      {"{\"a\\u001b[2J\":" + f32 + "}", 8, "'a\\x1b[2J': the name"},
      {"{\"" + std::string(5000, 'n') + "\":" + f32 + "}", 8, "the name is longer than 4096 bytes"},
      {R"({"__metadata__":{"sage.crc32c.header":"0","sage.crc32c.tensors":"[[1]]"}})", 0, "checksum"},
  };
  for (const Case& one : cases) {
    craft(one.header, one.data);
    const std::string message = refusal();
    if (one.cause.empty()) {
      EXPECT_EQ(message, "") << one.header;
    } else {
      EXPECT_TRUE(contains(message, one.cause)) << one.header;
      EXPECT_TRUE(contains(message, path().string())) << one.header;
    }
  }
  craft("{\"a\":" + f32 + "}", 8);
  EXPECT_TRUE(contains(refusal(Checksums::required), "no checksums"));
  craft("{\"a\":" + std::string(200000, '['), 0);
  EXPECT_TRUE(contains(refusal(), "nested deeper than 3"));
}

TEST_F(Safetensors, AHostileHeaderNeitherFillsMemoryNorTheMessage) {
  std::string values = "{\"a\":[";
  for (int i = 0; i < 4'000'100; ++i) values += "0,";
  craft(values + "0]}", 0);
  EXPECT_TRUE(contains(refusal(), "more than 4000000 values"));
  craft("{\"a\":\"" + std::string(1'000'000, 'x'), 0);  // never closed
  const std::string message = refusal();
  EXPECT_TRUE(contains(message, "not valid JSON"));
  EXPECT_LT(message.size(), 1000U);
}

TEST_F(Safetensors, ValuesThatAreNoBooleansAreRefused) {
  craft(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 0);
  std::string bytes = bytes_of(path());
  put_bytes(path(), bytes + "\1\2");
  EXPECT_TRUE(contains(refusal(), "BOOL"));
}

TEST_F(Safetensors, LengthsBeyondTheFileAreRefused) {
  for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1000},
                                     std::numeric_limits<std::uint64_t>::max(), std::uint64_t{1} << 40}) {
    std::string bytes(32, ' ');
    std::memcpy(bytes.data(), &length, 8);
    put_bytes(path(), bytes);
    EXPECT_TRUE(contains(refusal(), "header length")) << length;
  }
}

TEST_F(Safetensors, WhatIsNoFileIsNamed) {
  EXPECT_TRUE(contains(refusal(), "does not exist"));
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_safetensors(folder_); }), "not a regular file"));
  EXPECT_TRUE(contains(message_of<CheckpointError>([&] { read_safetensors("/dev/zero"); }), "not a regular file"));
}

TEST_F(Safetensors, WhatTheFormatCannotHoldIsRefusedBeforeWriting) {
  const at::Tensor one = at::ones({1}, at::kFloat);
  using List = std::vector<NamedTensor>;
  EXPECT_THROW(write_safetensors(path(), List{{"a", one}, {"a", one}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{"__metadata__", one}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{"a", at::Tensor()}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{"a", one.to(at::kShort)}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{"\xff", one}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{std::string("a\0b", 3), one}}), InternalError);
  EXPECT_THROW(write_safetensors(path(), List{{"a", one}}, {{"sage.crc32c.header", ""}}), InternalError);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(Safetensors, AFailedWriteLeavesTheOldFile) {
  write_safetensors(path(), std::vector<NamedTensor>{{"a", at::ones({3}, at::kFloat)}});
  const std::string before = bytes_of(path());
  const std::vector<NamedTensor> large{{"a", at::zeros({100000}, at::kFloat)}};
  {
    const testing::FullDisk full(50000);
    EXPECT_THROW(write_safetensors(path(), large), EnvironmentError);
  }
  EXPECT_EQ(bytes_of(path()), before);
  {
    const testing::ReadOnlyFolder forbidden(folder_);
    EXPECT_THROW(write_safetensors(path(), large), EnvironmentError);
  }
  EXPECT_EQ(bytes_of(path()), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "nothing is left beside it";
}

}  // namespace
}  // namespace sage
