// The worked examples of CONTRIBUTING.md: a data set, a network and a selection method that a newcomer might add. What
// stands between the marks is printed there word for word (tests/repository sees to that).
#include <ATen/ops/empty.h>
#include <ATen/ops/relu.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "data/byte_reader.h"
#include "data/format.h"
#include "distributed/communicator.h"
#include "models/architectures.h"
#include "models/per_example_gradients.h"
#include "selection/quota.h"
#include "selection/selection.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

using testing::contains;
using testing::message_of;

// [data set]
/// Glyphs: train.bin and test.bin, each a run of records of one label byte (0 to 9) and 16 x 16 grey bytes.
Split read_glyphs_file(const std::filesystem::path& path, const ReadOptions& options) {
  constexpr std::size_t side = 16, record = 1 + side * side, most = std::size_t{1} << 30;
  const std::string bytes = read_all_bytes(path, most);  // plain or gzip; longer than `most` is a DataError
  if (bytes.empty() || bytes.size() % record != 0) {
    throw DataError(fmt::format("{}: {} bytes, expected whole records of {}: the file is cut short or of another kind",
                                path.string(), bytes.size(), record));
  }
  const auto count = static_cast<std::int64_t>(bytes.size() / record);
  Split split;
  split.images = options.images({count, 1, side, side});  // shared by the ranks of a node
  auto* pixels = split.images.mutable_data_ptr<std::uint8_t>();
  for (std::size_t i = 0; i < bytes.size() / record; ++i) {
    const auto label = static_cast<std::uint8_t>(bytes[i * record]);
    if (label > 9) throw DataError(fmt::format("{}: record {}: label {} is not in 0..9", path.string(), i, label));
    split.labels.push_back(label);
    std::memcpy(pixels + i * side * side, bytes.data() + i * record + 1, side * side);
  }
  return split;
}

Dataset read_glyphs(const std::filesystem::path& folder, const ReadOptions& options) {
  Dataset dataset;
  dataset.name = "glyphs";
  dataset.class_count = 10;
  dataset.class_names = read_class_names(folder / "classes.txt", dataset.class_count);
  dataset.train = read_glyphs_file(require_file(folder, "train.bin"), options);
  dataset.test = read_glyphs_file(require_file(folder, "test.bin"), options);
  set_statistics(dataset);
  return dataset;
}
// [data set end]

// [network]
/// One hidden layer on 2 x 2 patches: a strided convolution, batch normalisation, and the mean over all pixels.
class PatchNet : public Classifier {
 public:
  explicit PatchNet(const ModelArguments& arguments) : Classifier(arguments.input_shape, arguments.class_count) {
    const std::int64_t width = arguments.width > 0 ? arguments.width : 64;
    const ConvolutionOptions patches{.kernel = 2, .stride = 2};
    conv_ = register_child("conv1", std::make_shared<Conv2d>(arguments.input_shape.channels, width, patches));
    norm_ = register_child("bn1", std::make_shared<BatchNorm2d>(width, arguments.batch_norm));
    add_head(width);  // `fc`, last
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    return at::relu(norm_->forward(conv_->forward(images))).mean(at::IntArrayRef{2, 3});
  }

 private:
  std::shared_ptr<Conv2d> conv_;
  std::shared_ptr<BatchNorm2d> norm_;
};

std::unique_ptr<Classifier> make_patch_net(const ModelArguments& arguments) {
  return std::make_unique<PatchNet>(arguments);
}
// [network end]

// [selection method]
/// The examples that come last in the files, class-balanced if selection.per_class.
SelectionResult select_latest(const SelectionRequest& request) {
  const auto count = static_cast<std::int64_t>(request.ids.size());
  const std::int64_t total = subset_size(request.config.fraction, count);
  SelectionResult result;
  result.method = "latest";
  for (std::int64_t i = 0; i < count; ++i) result.scores.push_back(static_cast<float>(i));
  std::vector<std::int64_t> positions;
  if (request.config.per_class) {
    const auto quota = class_quota(total, count_classes(request.labels, request.class_count));
    positions = highest_of_each_class(result.scores, request.labels, quota);
  } else {
    positions = highest(result.scores, total);
  }
  for (const std::int64_t position : positions) {
    result.kept.push_back(request.ids[static_cast<std::size_t>(position)]);
  }
  describe_classes(request, result);
  return result;  // the same on every rank: nothing here depends on it
}
// [selection method end]

class WorkedExamples : public testing::TemporaryFolder {};

TEST_F(WorkedExamples, ADataSetIsReadAndItsFaultsAreNamed) {
  std::string records;
  for (char label = 0; label < 3; ++label)
    records += std::string(1, label) + std::string(256, static_cast<char>(label * 80));
  testing::put_bytes(folder_ / "train.bin", records);
  testing::put_bytes(folder_ / "test.bin", records.substr(257));
  const Dataset dataset = read_glyphs(folder_, {});
  EXPECT_EQ(dataset.train.labels, (std::vector<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(dataset.train.images[2][0][15][15].item<int>(), 160);
  EXPECT_EQ(dataset.test.size(), 2);
  testing::put_bytes(folder_ / "test.bin", records + "x");
  EXPECT_TRUE(contains(message_of<DataError>([&] { read_glyphs(folder_, {}); }), "test.bin: 772 bytes"));
  records[257] = 10;
  testing::put_bytes(folder_ / "test.bin", records);
  EXPECT_TRUE(contains(message_of<DataError>([&] { read_glyphs(folder_, {}); }), "record 1: label 10"));
}

TEST_F(WorkedExamples, ANetworkHasItsShapesAndPerExampleGradients) {
  ModelArguments arguments;
  arguments.input_shape = {1, 16, 16};
  arguments.class_count = 10;
  const auto network = make_patch_net(arguments);
  initialize_parameters(*network, 1);
  EXPECT_EQ(parameter_count(*network), 64 * 4 + 2 * 64 + 64 * 10 + 10);
  network->eval();
  EXPECT_EQ(network->forward(at::empty({3, 1, 16, 16}).fill_(0.5)).sizes().vec(), (std::vector<std::int64_t>{3, 10}));
  EXPECT_EQ(PerExampleGradients(*network, {"full"}, 0.0, 8).dimension(), parameter_count(*network));
}

TEST_F(WorkedExamples, ASelectionMethodKeepsTheQuotaOfEachClass) {
  const std::vector<std::int64_t> ids{10, 11, 12, 13, 14, 15}, labels{0, 0, 1, 1, 0, 1};
  SelectionConfig config;
  config.fraction = 0.5;
  for (const bool per_class : {true, false}) {
    config.per_class = per_class;
    const auto result = select_latest({.config = config,
                                       .ids = ids,
                                       .labels = labels,
                                       .class_count = 2,
                                       .communicator = *make_single_communicator(at::kCPU)});
    EXPECT_EQ(result.kept,
              per_class ? (std::vector<std::int64_t>{11, 14, 15}) : (std::vector<std::int64_t>{13, 14, 15}));
    EXPECT_EQ(result.class_histogram.size(), 2U);
  }
}

}  // namespace
}  // namespace sage
