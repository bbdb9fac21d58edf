// Fetching from file:// URLs: real archives and transfers, made small.
#include "data/fetch.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "core/error.h"
#include "data/download.h"
#include "data/md5.h"
#include "data/registry.h"
#include "data/summary.h"
#include "data/tar.h"
#include "files.h"

namespace sage {
namespace {

using test::expect_error;
using test::TemporaryFolder;

struct Entry {
  std::string name, content;
  char type = '0';
  std::string link = "";
};

std::string tar_header(const Entry& entry) {
  std::string header(512, '\0');
  const auto put = [&](std::size_t at, const std::string& text) { header.replace(at, text.size(), text); };
  put(0, entry.name);
  put(100, "0000644");
  put(108, "0000000");
  put(116, "0000000");
  put(124, fmt::format("{:011o}", entry.content.size()));
  put(136, "00000000000");
  put(148, "        ");
  header[156] = entry.type;
  put(157, entry.link);
  put(257, std::string("ustar\0"
                       "00",
                       8));
  int sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return header;
}

std::string tar_bytes(const std::vector<Entry>& entries) {
  std::string bytes;
  for (const Entry& entry : entries) {
    bytes += tar_header(entry) + entry.content;
    bytes.resize((bytes.size() + 511) / 512 * 512);
  }
  return bytes + std::string(1024, '\0');
}

std::string url_of(const std::filesystem::path& folder) { return "file://" + folder.string(); }

/// A server folder with a CIFAR-100 archive, and its source with the right checksum.
OfficialSource make_archive(const TemporaryFolder& server, const std::vector<Entry>& entries) {
  test::write_gzip(server / "cifar-100-binary.tar.gz", tar_bytes(entries));
  return {"", {{"cifar-100-binary.tar.gz", md5_of_file(server / "cifar-100-binary.tar.gz")}}, true};
}

std::vector<Entry> good_entries() {
  return {{"cifar-100-binary/", "", '5'},
          {"cifar-100-binary/train.bin", test::cifar_records(30, 2)},
          {"cifar-100-binary/test.bin", test::cifar_records(10, 2)}};
}

TEST(Md5, TestSuiteOfTheRfc) {
  EXPECT_EQ(md5_hex(""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(md5_hex("a"), "0cc175b9c0f1b6a831c399e269772661");
  EXPECT_EQ(md5_hex("message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
  EXPECT_EQ(md5_hex("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"),
            "d174ab98d277d9f5a5611c2c9f419d9f");
  EXPECT_EQ(md5_hex("12345678901234567890123456789012345678901234567890123456789012345678901234567890"),
            "57edf4a22be3c955ac49da2e2107b67a");
  for (std::size_t length = 50; length < 140; ++length) {  // pieces must not matter, at every place of a block's end
    Md5 pieces;
    const std::string text(length, 'x');
    for (std::size_t at = 0; at < length; at += 7) pieces.update(std::string_view(text).substr(at, 7));
    EXPECT_EQ(pieces.hex(), md5_hex(text));
  }
}

TEST(Fetch, ArchiveIsUnpackedCheckedAndReadable) {
  TemporaryFolder server, data;
  const OfficialSource source = make_archive(server, good_entries());
  const auto folder = fetch_dataset("cifar100", data.path(), url_of(server.path()) + "/", source);
  EXPECT_EQ(folder, data / "cifar-100-binary");
  EXPECT_FALSE(std::filesystem::exists(data / "cifar-100-binary.tar.gz"));
  EXPECT_FALSE(std::filesystem::exists(data / "cifar-100-binary.unpacking"));
  DataConfig config;
  config.name = "cifar100";
  config.path = data.path().string();
  config.allow_partial = true;
  const DatasetSummary checked = verify_dataset(config);
  EXPECT_EQ(checked.train.count, 30);
  ASSERT_EQ(checked.files.size(), 2u);
  EXPECT_EQ(checked.files[0].checksum, FileSummary::Checksum::matches);
  // Fetched already: needs no server.
  EXPECT_EQ(fetch_dataset("cifar100", data.path(), "file:///no/such/server", source), folder);
  // Damage after unpacking is seen.
  std::string bytes = test::read_bytes(folder / "train.bin");
  bytes[100] ^= 1;
  test::write_bytes(folder / "train.bin", bytes);
  EXPECT_EQ(verify_dataset(config).files[0].checksum, FileSummary::Checksum::differs);
}

TEST(Fetch, WrongChecksumLeavesNothing) {
  TemporaryFolder server, data;
  OfficialSource source = make_archive(server, good_entries());
  source.files[0].md5 = md5_hex("another file");
  expect_error<DataError>([&] { fetch_dataset("cifar100", data.path(), url_of(server.path()), source); },
                          {"wrong checksum", "cifar-100-binary.tar.gz", "cifar100", "unpack"});
  EXPECT_TRUE(std::filesystem::is_empty(data.path()));
}

TEST(Fetch, WithoutAServerSaysWhatToPutWhere) {
  TemporaryFolder server, data;
  expect_error<DataError>(
      [&] { fetch_dataset("fashion_mnist", data.path(), url_of(server.path())); },
      {"train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", (data / "fashion-mnist").c_str(), "file:///"});
  expect_error<DataError>([&] { fetch_dataset("cifar10", data.path(), url_of(server.path())); },
                          {"cifar-10-binary.tar.gz", (data / "cifar-10-batches-bin").c_str()});
  expect_error<ConfigError>([&] { fetch_dataset("cifar", data.path(), ""); }, {"cifar10"});
}

TEST(Fetch, SingleFilesAreKeptWhereRightAndRepairedWhereWrong) {
  TemporaryFolder server, data;
  OfficialSource source;
  const std::pair<const char*, std::string> files[] = {{"train-images-idx3-ubyte.gz", test::idx_images(20)},
                                                       {"train-labels-idx1-ubyte.gz", test::idx_labels(20)},
                                                       {"t10k-images-idx3-ubyte.gz", test::idx_images(5)},
                                                       {"t10k-labels-idx1-ubyte.gz", test::idx_labels(5)}};
  for (const auto& [name, content] : files) {
    test::write_gzip(server / name, content);
    source.files.push_back({name, md5_of_file(server / name)});
  }
  const auto folder = fetch_dataset("mnist", data.path(), url_of(server.path()), source);
  test::write_bytes(folder / "train-labels-idx1-ubyte.gz", "damaged");
  std::filesystem::remove(server / "train-images-idx3-ubyte.gz");  // right already: not asked for again
  fetch_dataset("mnist", data.path(), url_of(server.path()), source);
  DataConfig config;
  config.name = "mnist";
  config.path = data.path().string();
  config.allow_partial = true;
  EXPECT_EQ(load_dataset(config).train.size(), 20);
}

TEST(Fetch, DigitsAreCopiedFromScikitLearnsFolderAndChecked) {
  TemporaryFolder server, data;
  expect_error<DataError>([&] { fetch_dataset("digits", data.path(), ""); },
                          {"scikit-learn", "digits.csv.gz", "file://"});
  test::write_gzip(server / "digits.csv.gz", test::digits_rows(1796));
  EXPECT_THROW(fetch_dataset("digits", data.path(), url_of(server.path())), DataError);
  EXPECT_FALSE(std::filesystem::exists(data / "digits/digits.csv.gz"));
  test::write_gzip(server / "digits.csv.gz", test::digits_rows(1797));
  EXPECT_EQ(fetch_dataset("digits", data.path(), url_of(server.path())), data / "digits");
  EXPECT_EQ(find_dataset("digits", data.path()), data / "digits");
}

TEST(Download, ContinuesAPart) {
  TemporaryFolder server, data;
  std::string content;
  for (int i = 0; i < 300000; ++i) content.push_back(static_cast<char>(i * 7 % 253));
  test::write_bytes(server / "file", content);
  const std::string url = url_of(server / "file"), md5 = md5_hex(content);
  // The part's own bytes are kept: the server's first half is another now, and the result is right all the same.
  test::write_bytes(data / "file.part", content.substr(0, 150000));
  std::string other_half = content;
  other_half[10] ^= 1;
  test::write_bytes(server / "file", other_half);
  download_file(url, data / "file", md5);
  EXPECT_EQ(test::read_bytes(data / "file"), content);
  EXPECT_FALSE(std::filesystem::exists(data / "file.part"));
}

TEST(Download, StartsAgainWhereAPartIsOfNoUse) {
  TemporaryFolder server, data;
  const std::string content(100000, 'c');
  test::write_bytes(server / "file", content);
  const std::string url = url_of(server / "file"), md5 = md5_hex(content);
  for (const std::string& part : {std::string(5000, 'x'), content + "more", std::string(), content}) {
    test::write_bytes(data / "file.part", part);
    download_file(url, data / "file", md5);
    EXPECT_EQ(test::read_bytes(data / "file"), content) << part.size();
    EXPECT_FALSE(std::filesystem::exists(data / "file.part"));
    std::filesystem::remove(data / "file");
  }
}

TEST(Download, RefusesOtherProtocols) {
  TemporaryFolder data;
  EXPECT_THROW(download_file("ftp://127.0.0.1/file", data / "file", ""), DataError);
  EXPECT_THROW(download_file("http://127.0.0.1:1/file", data / "file", ""), DataError);
  EXPECT_TRUE(std::filesystem::is_empty(data.path()));
}

TEST(Tar, RefusesWhatCouldLeaveTheFolder) {
  const auto refused = [](const std::vector<Entry>& entries, std::initializer_list<const char*> parts) {
    TemporaryFolder folder;
    test::write_gzip(folder / "in/a.tar.gz", tar_bytes(entries));
    std::filesystem::create_directory(folder / "out");
    expect_error<DataError>([&] { unpack_tar_gz(folder / "in/a.tar.gz", folder / "out"); }, parts);
    EXPECT_FALSE(std::filesystem::exists(folder / "evil"));
    EXPECT_FALSE(std::filesystem::exists("/tmp/sage_evil"));
  };
  refused({{"../evil", "x"}}, {"a.tar.gz", "../evil", "outside"});
  refused({{"good/../../evil", "x"}}, {"good/../../evil", "outside"});
  refused({{"/tmp/sage_evil", "x"}}, {"/tmp/sage_evil", "outside"});
  refused({{"link", "", '2', ".."}, {"link/evil", "x"}}, {"link", "neither a file nor a folder"});
  refused({{"hard", "", '1', "/etc/passwd"}}, {"hard", "neither"});
  refused({{"device", "", '3'}}, {"device", "neither"});
  refused({{"fifo", "", '6'}}, {"fifo", "neither"});
  refused({{"twice", "a"}, {"twice", "b"}}, {"twice", "exists"});
  refused({{"file", "a"}, {"file/below", "b"}}, {"file/below", "takes the place"});
  refused({{"a\x1b[2J", "x"}}, {"a\\x1b[2J", "control characters"});
  refused({{"a\nb", "x"}}, {"a\\x0ab", "control characters"});
  refused({{"\xff", "x"}}, {"\\xff", "UTF-8"});
  refused({{"a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/x", "x"}}, {"deeper than 16 folders"});
  refused({{"notes", std::string((1 << 20) + 1, 'n'), 'x'}}, {"notes of 1048577 bytes"});
}

TEST(Tar, UnpacksAndRefusesDamage) {
  TemporaryFolder folder;
  const std::vector<Entry> entries = {{"d/", "", '5'},
                                      {"notes", std::string(20, 'n'), 'x'},
                                      {"d/a", std::string(1000, 'a')},
                                      {"d/e", ""},
                                      {"d/b", std::string(512, 'b'), '\0'}};
  const std::string bytes = tar_bytes(entries);
  test::write_gzip(folder / "a.tar.gz", bytes);
  unpack_tar_gz(folder / "a.tar.gz", folder / "out");
  EXPECT_EQ(test::read_bytes(folder / "out/d/a"), std::string(1000, 'a'));
  EXPECT_EQ(test::read_bytes(folder / "out/d/b"), std::string(512, 'b'));
  EXPECT_EQ(std::filesystem::file_size(folder / "out/d/e"), 0u);
  EXPECT_FALSE(std::filesystem::exists(folder / "out/notes"));

  const auto refused = [&](const std::string& content, const char* part) {
    test::write_gzip(folder / "b.tar.gz", content);
    std::filesystem::remove_all(folder / "other");
    expect_error<DataError>([&] { unpack_tar_gz(folder / "b.tar.gz", folder / "other"); }, {"b.tar.gz", part});
  };
  refused(bytes.substr(0, 512 * 4), "cut short");              // within d/a
  refused(bytes.substr(0, bytes.size() - 1024), "cut short");  // no end mark
  std::string damaged = bytes;
  damaged[3] ^= 1;
  refused(damaged, "damaged");
  refused(bytes + std::string(std::size_t{40} << 20, '\0'), "more data after the end mark");  // 40 kB on disk
}

}  // namespace
}  // namespace sage
