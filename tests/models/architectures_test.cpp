#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "models/oracle.h"
#include "models/registry.h"

namespace sage {
namespace {

using testing::random_tensor;

std::unique_ptr<Classifier> make(const std::string& name, InputShape shape = {3, 32, 32}, std::int64_t classes = 10,
                                 std::uint64_t seed = 1, std::int64_t width = 0) {
  return make_model(ModelConfig{.name = name, .width = width, .pretrained = ""}, shape, classes, seed);
}

TEST(Architectures, HaveExactlyTheirParameterCounts) {
  EXPECT_EQ(parameter_count(*make("resnet20")), 269'722);
  EXPECT_EQ(parameter_count(*make("resnet18")), 11'173'962);
  EXPECT_EQ(parameter_count(*make("resnext29_32x4d")), 4'774'218);
  EXPECT_EQ(parameter_count(*make("resnext", {3, 32, 32}, 100)), 4'866'468);
  // 9 x (32 + 32 x 64 + 64 x 128) + 2 x (32 + 64 + 128) + 129 x 10
  EXPECT_EQ(parameter_count(*make("cnn", {1, 28, 28})), 94'186);
  EXPECT_EQ(parameter_count(*make("mlp", {1, 28, 28})), 785 * 256 + 257 * 256 + 257 * 10);
}

TEST(Architectures, TakeEveryShapeOfTheDataSets) {
  const std::map<std::string, std::int64_t> features = {
      {"cnn", 128}, {"mlp", 256}, {"resnet20", 64}, {"resnet18", 512}, {"resnext29_32x4d", 1024}};
  ASSERT_EQ(features.size(), model_table().size());
  for (const ModelEntry& entry : model_table()) {
    for (const InputShape shape : {InputShape{1, 8, 8}, InputShape{1, 28, 28}, InputShape{3, 32, 32}}) {
      SCOPED_TRACE(std::string(entry.name) + " " + std::to_string(shape.height));
      const auto model = make(std::string(entry.name), shape, 7);
      const at::Tensor images = random_tensor({2, shape.channels, shape.height, shape.width}, "images");
      const at::NoGradGuard no_grad;
      const at::Tensor h = model->features(images);
      EXPECT_EQ(h.sizes(), (std::vector<std::int64_t>{2, features.at(std::string(entry.name))}));
      EXPECT_EQ(model->feature_count(), h.size(1));
      const at::Tensor logits = model->forward(images);
      EXPECT_EQ(logits.sizes(), (std::vector<std::int64_t>{2, 7}));
      EXPECT_TRUE(at::isfinite(logits).all().item<bool>());
      EXPECT_EQ(model->class_count(), 7);
      EXPECT_THROW(model->features(images.narrow(2, 0, 4)), InternalError);
    }
  }
}

TEST(Architectures, AreAPureFunctionOfTheSeed) {
  for (const ModelEntry& entry : model_table()) {
    if (entry.name == "resnet18") continue;  // the same code as resnet20, many times its size
    SCOPED_TRACE(entry.name);
    const auto a = make(std::string(entry.name), {3, 8, 8}, 10, 3), b = make(std::string(entry.name), {3, 8, 8}, 10, 3);
    const auto c = make(std::string(entry.name), {3, 8, 8}, 10, 4);
    const auto of_a = a->parameters(), of_b = b->parameters(), of_c = c->parameters();
    for (std::size_t i = 0; i < of_a.size(); ++i) {
      EXPECT_TRUE(at::equal(of_a[i], of_b[i]));
      const bool drawn = of_a[i].dim() > 1;
      EXPECT_EQ(at::equal(of_a[i], of_c[i]), !drawn && a->named_parameters()[i].name.find("fc") != 0);
    }
  }
}

TEST(Architectures, ResNet18HasTorchvisionsNames) {
  const auto model = make("resnet18");
  std::map<std::string, std::vector<std::int64_t>> shapes;
  std::vector<std::string> order;
  for (const NamedTensor& entry : model->named_parameters()) {
    shapes[entry.name] = entry.tensor.sizes().vec();
    order.push_back(entry.name);
  }
  for (const NamedTensor& entry : model->named_buffers()) shapes[entry.name] = entry.tensor.sizes().vec();
  EXPECT_EQ(order.size(), 62U);    // as torchvision's resnet18 has
  EXPECT_EQ(shapes.size(), 122U);  // keys of its state_dict
  const std::map<std::string, std::vector<std::int64_t>> expected = {
      {"conv1.weight", {64, 3, 3, 3}},
      {"bn1.weight", {64}},
      {"bn1.bias", {64}},
      {"bn1.running_mean", {64}},
      {"bn1.running_var", {64}},
      {"bn1.num_batches_tracked", {}},
      {"layer1.0.conv1.weight", {64, 64, 3, 3}},
      {"layer1.0.bn1.weight", {64}},
      {"layer1.0.bn1.running_var", {64}},
      {"layer1.0.conv2.weight", {64, 64, 3, 3}},
      {"layer1.0.bn2.bias", {64}},
      {"layer1.1.conv2.weight", {64, 64, 3, 3}},
      {"layer1.1.bn2.num_batches_tracked", {}},
      {"layer2.0.conv1.weight", {128, 64, 3, 3}},
      {"layer2.0.bn1.weight", {128}},
      {"layer2.0.conv2.weight", {128, 128, 3, 3}},
      {"layer2.0.downsample.0.weight", {128, 64, 1, 1}},
      {"layer2.0.downsample.1.weight", {128}},
      {"layer2.0.downsample.1.bias", {128}},
      {"layer2.0.downsample.1.running_mean", {128}},
      {"layer2.0.downsample.1.num_batches_tracked", {}},
      {"layer2.1.conv1.weight", {128, 128, 3, 3}},
      {"layer3.0.conv1.weight", {256, 128, 3, 3}},
      {"layer3.0.downsample.0.weight", {256, 128, 1, 1}},
      {"layer3.1.bn2.weight", {256}},
      {"layer4.0.conv1.weight", {512, 256, 3, 3}},
      {"layer4.0.conv2.weight", {512, 512, 3, 3}},
      {"layer4.0.downsample.0.weight", {512, 256, 1, 1}},
      {"layer4.1.conv2.weight", {512, 512, 3, 3}},
      {"layer4.1.bn2.running_var", {512}},
      {"fc.weight", {10, 512}},
      {"fc.bias", {10}},
  };
  for (const auto& [name, shape] : expected) {
    ASSERT_TRUE(shapes.contains(name)) << name;
    EXPECT_EQ(shapes.at(name), shape) << name;
  }
  EXPECT_EQ(order.front(), "conv1.weight");
  EXPECT_EQ(order[order.size() - 2], "fc.weight");
  EXPECT_EQ(order.back(), "fc.bias");
}

TEST(Architectures, GiveTheBatchNormFunctionToEveryNormLayer) {
  const std::map<std::string, int> norm_layers = {{"cnn", 3}, {"mlp", 0}, {"resnet20", 19}, {"resnext", 31}};
  for (const auto& [name, count] : norm_layers) {
    int calls = 0;
    const auto model = make_model(ModelConfig{.name = name, .pretrained = ""}, {1, 8, 8}, 3, 1,
                                  [&calls](const at::Tensor& input, const at::Tensor&, const at::Tensor&,
                                           const at::Tensor&, const at::Tensor&, double, double) {
                                    ++calls;
                                    return input;
                                  });
    model->forward(random_tensor({2, 1, 8, 8}, "images"));
    EXPECT_EQ(calls, count) << name;
  }
}

TEST(Architectures, WidthScalesCnnAndMlp) {
  EXPECT_EQ(make("cnn", {1, 8, 8}, 10, 1, 8)->feature_count(), 32);
  EXPECT_EQ(make("mlp", {1, 8, 8}, 10, 1, 48)->feature_count(), 48);
  EXPECT_THROW(make("resnet20", {3, 32, 32}, 10, 1, 8), ConfigError);
  EXPECT_THROW(make("cnn", {3, 32, 32}, 10, 1, -1), ConfigError);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

TEST(Registry, RefusesWhatMakesNoSense) {
  const std::string unknown = message_of([] { make("resnet19"); });
  EXPECT_NE(unknown.find("'resnet19'"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("did you mean 'resnet18'"), std::string::npos) << unknown;
  EXPECT_NE(unknown.find("resnext29_32x4d (or resnext)"), std::string::npos) << unknown;
  EXPECT_NE(message_of([] { make("resnet18", {3, 4, 4}); }).find("8x8"), std::string::npos);
  EXPECT_NE(message_of([] { make("cnn", {1, 3, 28}); }).find("4x4"), std::string::npos);
  EXPECT_NE(message_of([] { make("cnn", {0, 28, 28}); }).find("0 channels"), std::string::npos);
  EXPECT_NE(message_of([] { make("mlp", {1, 28, 28}, 1); }).find("2 classes"), std::string::npos);
}

}  // namespace
}  // namespace sage
