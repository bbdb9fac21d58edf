#include "models/weights.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "core/safetensors.h"
#include "models/oracle.h"
#include "models/registry.h"
#include "support/temporary_folder.h"

namespace sage {
namespace {

std::unique_ptr<Classifier> make(const std::string& name, std::uint64_t seed, std::int64_t classes = 10) {
  return make_model(ModelConfig{.name = name}, {1, 8, 8}, classes, seed);
}

std::string message_of_loading(Module& model, const std::vector<NamedTensor>& state) {
  try {
    load_state(model, state);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "no CheckpointError";
}

TEST(Weights, RoundTripParametersAndBuffers) {
  const auto from = make("cnn", 1), to = make("cnn", 2);
  testing::disturb(*from);
  from->forward(testing::random_tensor({3, 1, 8, 8}, "images"));
  const std::vector<NamedTensor> state = copy_state(*from);
  EXPECT_EQ(state.size(), 11U + 9U);
  const at::Tensor leaf = to->parameters()[0];
  load_state(*to, state);
  EXPECT_TRUE(leaf.is_same(to->parameters()[0]));
  EXPECT_TRUE(leaf.is_leaf() && leaf.requires_grad());
  const std::vector<NamedTensor> back = copy_state(*to);
  for (std::size_t i = 0; i < state.size(); ++i) {
    EXPECT_EQ(back[i].name, state[i].name);
    EXPECT_TRUE(at::equal(back[i].tensor, state[i].tensor)) << state[i].name;
    EXPECT_FALSE(state[i].tensor.requires_grad());
  }
  EXPECT_EQ(to->named_buffers()[2].tensor.item<std::int64_t>(), 1);
  // copies, not views
  state[0].tensor.zero_();
  EXPECT_GT(from->parameters()[0].abs().sum().item<double>(), 0.0);
  const auto third = make("cnn", 3);
  copy_parameters(*from, *third);
  EXPECT_TRUE(at::equal(third->parameters()[0], from->parameters()[0]));
}

TEST(Weights, NameWhatDoesNotFitAndChangeNothing) {
  const auto model = make("cnn", 1);
  const at::Tensor before = model->parameters()[0].detach().clone();

  std::vector<NamedTensor> state = copy_state(*make("cnn", 2, 7));
  std::string message = message_of_loading(*model, state);
  EXPECT_NE(message.find("2 of a wrong shape: fc.weight ([7, 128] instead of [10, 128]), fc.bias"), std::string::npos)
      << message;

  state = copy_state(*make("cnn", 2));
  state[0].name = "conv9.weight";
  message = message_of_loading(*model, state);
  EXPECT_NE(message.find("1 missing: conv1.weight"), std::string::npos) << message;
  EXPECT_NE(message.find("1 unexpected: conv9.weight"), std::string::npos) << message;

  message = message_of_loading(*model, {});
  EXPECT_NE(message.find("20 missing: conv1.weight, bn1.weight, bn1.bias, conv2.weight, bn2.weight, ..."),
            std::string::npos)
      << message;

  state = copy_state(*make("cnn", 2));
  state.push_back(state[0]);
  EXPECT_NE(message_of_loading(*model, state).find("conv1.weight (twice)"), std::string::npos);

  state = copy_state(*make("cnn", 2));
  state[0].tensor = state[0].tensor.to(at::kLong);
  EXPECT_NE(message_of_loading(*model, state).find("of integers"), std::string::npos);

  EXPECT_TRUE(at::equal(model->parameters()[0], before));
}

class Pretrained : public testing::TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    file_ = folder_ / "weights.safetensors";
  }
  void write(const std::vector<NamedTensor>& state) { write_safetensors(file_, state); }
  std::string message_of_loading(Classifier& model) {
    return testing::message_of<CheckpointError>([&] { load_pretrained(model, file_); });
  }
  std::filesystem::path file_;
};

TEST_F(Pretrained, AHeadForOtherClassesStaysFreshWhateverItsName) {
  for (const char* name : {"resnet20", "mobilenet_v2", "vit_tiny"}) {
    SCOPED_TRACE(name);
    const auto from = make(name, 1, 10), to = make(name, 2, 4), like = make(name, 2, 4);
    testing::disturb(*from);
    write(copy_state(*from));
    const std::vector<std::string> left_out = load_pretrained(*to, file_);
    const std::string head = to->head_name(), features = std::to_string(to->feature_count());
    EXPECT_EQ(left_out,
              (std::vector<std::string>{head + ".weight ([10, " + features + "] instead of [4, " + features + "])",
                                        head + ".bias ([10] instead of [4])"}));
    const auto before = copy_state(*like), source = copy_state(*from), after = copy_state(*to);
    for (std::size_t i = 0; i < after.size(); ++i) {
      const bool is_fresh = after[i].name.starts_with(head + ".");
      EXPECT_TRUE(at::equal(after[i].tensor, (is_fresh ? before : source)[i].tensor)) << after[i].name;
    }
    // With as many classes nothing is left out.
    const auto same = make(name, 3, 10);
    EXPECT_TRUE(load_pretrained(*same, file_).empty());
    EXPECT_TRUE(at::equal(same->head().weight(), from->head().weight()));
  }
}

TEST_F(Pretrained, CountsOfBatchesMayBeMissing) {
  const auto from = make("cnn", 1), to = make("cnn", 2);
  std::vector<NamedTensor> state;
  for (const NamedTensor& entry : copy_state(*from)) {
    if (!entry.name.ends_with("num_batches_tracked")) state.push_back(entry);
  }
  state.push_back({"training/optimizer/step", at::ones({1})});  // as in a checkpoint
  write(state);
  EXPECT_TRUE(load_pretrained(*to, file_).empty());
  EXPECT_TRUE(at::equal(to->parameters()[0], from->parameters()[0]));
}

TEST_F(Pretrained, NamesTheFileAndWhatDoesNotFitAndChangesNothing) {
  const auto model = make_model(ModelConfig{.name = "resnet18"}, {3, 8, 8}, 10, 1);
  const at::Tensor before = model->parameters()[0].detach().clone();
  const auto large = make_model(ModelConfig{.name = "resnet18", .stem = "imagenet"}, {3, 8, 8}, 1000, 1);
  write(copy_state(*large));
  std::string message = message_of_loading(*model);
  EXPECT_NE(message.find(file_.string()), std::string::npos) << message;
  EXPECT_NE(message.find("1 of a wrong shape: conv1.weight ([64, 3, 7, 7] instead of [64, 3, 3, 3])"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("model.stem"), std::string::npos) << message;

  std::vector<NamedTensor> state = copy_state(*model);
  state[3].name = "layer9.weight";
  write(state);
  message = message_of_loading(*model);
  EXPECT_NE(message.find("1 missing: layer1.0.conv1.weight"), std::string::npos) << message;
  EXPECT_NE(message.find("1 unexpected: layer9.weight"), std::string::npos) << message;

  // A head of other features is no head for other classes.
  state = copy_state(*model);
  for (NamedTensor& entry : state) {
    if (entry.name == "fc.weight") entry.tensor = at::zeros({1000, 5});
  }
  write(state);
  message = message_of_loading(*model);
  EXPECT_NE(message.find("fc.weight ([1000, 5] instead of [10, 512])"), std::string::npos) << message;
  EXPECT_TRUE(at::equal(model->parameters()[0], before));

  std::ofstream(file_) << "no weights";
  EXPECT_NE(message_of_loading(*model).find(file_.string()), std::string::npos);
}

}  // namespace
}  // namespace sage
