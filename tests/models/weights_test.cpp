#include "models/weights.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "models/oracle.h"
#include "models/registry.h"

namespace sage {
namespace {

std::unique_ptr<Classifier> make(const std::string& name, std::uint64_t seed, std::int64_t classes = 10) {
  return make_model(ModelConfig{.name = name, .pretrained = ""}, {1, 8, 8}, classes, seed);
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

}  // namespace
}  // namespace sage
