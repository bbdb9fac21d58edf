#include <ATen/autocast_mode.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
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
  return make_model(ModelConfig{.name = name, .width = width}, shape, classes, seed);
}

/// Counted without drawing the weights.
std::int64_t count_of(const std::string& name, std::int64_t classes, std::int64_t side, Stem stem = Stem::imagenet) {
  return parameter_count(*find_model(name).make({{3, side, side}, classes, 0, stem, {}}));
}

TEST(Architectures, HaveExactlyTheirParameterCounts) {
  EXPECT_EQ(parameter_count(*make("resnet20")), 269'722);
  EXPECT_EQ(parameter_count(*make("resnet18")), 11'173'962);
  EXPECT_EQ(parameter_count(*make("resnext29_32x4d")), 4'774'218);
  EXPECT_EQ(parameter_count(*make("resnext", {3, 32, 32}, 100)), 4'866'468);
  EXPECT_EQ(count_of("resnext29_2x64d", 10, 32), 9'128'778);
  EXPECT_EQ(count_of("resnext29_4x64d", 10, 32), 27'104'586);
  EXPECT_EQ(count_of("resnext29_8x64d", 10, 32), 89'598'282);
  // 9 x (32 + 32 x 64 + 64 x 128) + 2 x (32 + 64 + 128) + 129 x 10
  EXPECT_EQ(parameter_count(*make("cnn", {1, 28, 28})), 94'186);
  EXPECT_EQ(parameter_count(*make("mlp", {1, 28, 28})), 785 * 256 + 257 * 256 + 257 * 10);
  // What torchvision publishes (num_params), for 1,000 classes.
  EXPECT_EQ(count_of("resnet18", 1000, 224), 11'689'512);
  EXPECT_EQ(count_of("resnet34", 1000, 224), 21'797'672);
  EXPECT_EQ(count_of("resnet50", 1000, 224), 25'557'032);
  EXPECT_EQ(count_of("resnext50_32x4d", 1000, 224), 25'028'904);
  EXPECT_EQ(count_of("mobilenet_v2", 1000, 224), 3'504'872);
  EXPECT_EQ(count_of("efficientnet_b0", 1000, 224), 5'288'548);
  EXPECT_EQ(count_of("vit_b_16", 1000, 224), 86'567'656);
  EXPECT_EQ(count_of("vit_tiny", 1000, 224), 5'717'416);  // DeiT-Ti
  for (const std::int64_t classes : {10, 100, 200, 365, 1000}) {
    EXPECT_EQ(count_of("resnet50", classes, 64), 25'557'032 - 2049 * (1000 - classes));
    EXPECT_EQ(count_of("resnet50", classes, 64, Stem::cifar), count_of("resnet50", classes, 64) - 64 * 3 * (49 - 9));
  }
}

/// Networks whose weights take long to draw: at one shape only.
bool is_large(std::string_view name) {
  return name == "resnet34" || name == "resnet50" || name == "resnext50_32x4d" || name == "resnext29_2x64d" ||
         name == "resnext29_4x64d" || name == "resnext29_8x64d" || name == "vit_b_16";
}

TEST(Architectures, TakeEveryShapeOfTheDataSets) {
  const std::map<std::string, std::int64_t> features = {
      {"cnn", 128},
      {"mlp", 256},
      {"resnet20", 64},
      {"resnet18", 512},
      {"resnet34", 512},
      {"resnet50", 2048},
      {"resnext50_32x4d", 2048},
      {"resnext29_32x4d", 1024},
      {"resnext29_2x64d", 1024},
      {"resnext29_4x64d", 2048},
      {"resnext29_8x64d", 4096},
      {"mobilenet_v2", 1280},
      {"efficientnet_b0", 1280},
      {"vit_b_16", 768},
      {"vit_tiny", 192},
  };
  ASSERT_EQ(features.size(), model_table().size());
  for (const ModelEntry& entry : model_table()) {
    for (const InputShape shape : {InputShape{1, 16, 16}, InputShape{1, 8, 8}, InputShape{1, 28, 28},
                                   InputShape{3, 32, 32}, InputShape{3, 64, 48}}) {
      if (is_large(entry.name) && shape.height != 16) continue;
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
    if (is_large(entry.name) || entry.name == "resnet18") continue;  // the same code as others, many times their size
    SCOPED_TRACE(entry.name);
    const auto a = make(std::string(entry.name), {3, 8, 8}, 10, 3), b = make(std::string(entry.name), {3, 8, 8}, 10, 3);
    const auto c = make(std::string(entry.name), {3, 8, 8}, 10, 4);
    const auto of_a = a->parameters(), of_b = b->parameters(), of_c = c->parameters();
    std::size_t drawn = 0;
    for (std::size_t i = 0; i < of_a.size(); ++i) {
      EXPECT_TRUE(at::equal(of_a[i], of_b[i]));
      const bool is_constant = of_a[i].min().item<double>() == of_a[i].max().item<double>();
      EXPECT_EQ(at::equal(of_a[i], of_c[i]), is_constant) << a->named_parameters()[i].name;
      drawn += is_constant ? 0 : 1;
    }
    EXPECT_GE(drawn, 3U);
  }
}

/// Everything that a run may do with a network, on the smallest images that it takes.
TEST(Architectures, WorkInEveryTypeAndLayoutAndWithNoExamplesAtAll) {
  for (const ModelEntry& entry : model_table()) {
    if (is_large(entry.name) && entry.name != "vit_b_16" && entry.name != "resnet50") continue;  // the same code
    SCOPED_TRACE(entry.name);
    const std::int64_t side = std::max<std::int64_t>(8, entry.smallest_side);
    const auto model = make(std::string(entry.name), {3, side, side});
    testing::disturb(*model);
    const at::Tensor images = random_tensor({4, 3, side, side}, "images");
    const at::Tensor labels = testing::random_labels(4, 10);
    const auto logits_of = [&](const at::Tensor& input) {
      const at::NoGradGuard no_grad;
      model->eval();
      return model->forward(input);
    };
    const at::Tensor expected = logits_of(images);
    const double scale = expected.abs().max().item<double>();
    const auto error_of = [&](const at::Tensor& logits) {
      return (logits.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() / scale;
    };
    // Gradients of a step in training mode, all finite.
    const auto step = [&](const at::Tensor& input, const at::Tensor& target) {
      model->train();
      for (const at::Tensor& parameter : model->parameters()) parameter.mutable_grad().reset();
      at::cross_entropy_loss(model->forward(input).to(at::kFloat), target, {}, at::Reduction::Sum).backward();
      for (const NamedTensor& parameter : model->named_parameters()) {
        ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
        EXPECT_TRUE(at::isfinite(parameter.tensor.grad()).all().item<bool>()) << parameter.name;
      }
    };
    model->to(at::kCPU, at::kDouble);
    EXPECT_LT(error_of(logits_of(images.to(at::kDouble))), 1e-4);
    model->to(at::kCPU, at::kBFloat16);
    EXPECT_LT(error_of(logits_of(images.to(at::kBFloat16))), 0.2);
    model->to(at::kCPU, at::kFloat, at::MemoryFormat::ChannelsLast);
    EXPECT_LT(error_of(logits_of(images.contiguous(at::MemoryFormat::ChannelsLast))), 0.1);  // of bfloat16 weights
    {
      SCOPED_TRACE("float32, channels_last");
      step(images.contiguous(at::MemoryFormat::ChannelsLast), labels);
    }
    {
      at::autocast::set_autocast_enabled(at::kCPU, true);
      at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
      SCOPED_TRACE("bfloat16 autocast");
      step(images, labels);
      at::autocast::clear_cache();
      at::autocast::set_autocast_enabled(at::kCPU, false);
    }
    EXPECT_EQ(logits_of(images.narrow(0, 0, 0)).sizes(), (std::vector<std::int64_t>{0, 10}));
  }
}

TEST(Architectures, ARankWithoutExamplesTakesPartInForwardAndBackward) {
  // Batch statistics of no examples are the affair of the function that synchronises them.
  const BatchNormFunction identity = [](const at::Tensor& input, const at::Tensor& weight, const at::Tensor& bias,
                                        const at::Tensor&, const at::Tensor&, double, double) {
    return input * weight.view({1, -1, 1, 1}) + bias.view({1, -1, 1, 1});
  };
  for (const char* name : {"cnn", "resnet18", "resnext", "mobilenet_v2", "efficientnet_b0", "vit_tiny"}) {
    SCOPED_TRACE(name);
    const auto model = make_model(ModelConfig{.name = name}, {3, 8, 8}, 5, 1, identity);
    at::Tensor noise;
    if (model->noise_width() > 0) {
      noise = at::zeros({0, model->noise_width()});
      model->write_noise(1, 2, {}, noise);
    }
    model->forward(at::zeros({0, 3, 8, 8}), noise).sum().backward();
    for (const NamedTensor& parameter : model->named_parameters()) {
      ASSERT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
      EXPECT_EQ(parameter.tensor.grad().abs().sum().item<double>(), 0.0) << parameter.name;
    }
  }
}

/// Second derivatives, which curvature estimates go by: against differences of gradients.
TEST(Architectures, SmoothNetworksAreTwiceDifferentiable) {
  for (const char* name : {"efficientnet_b0", "vit_tiny"}) {
    SCOPED_TRACE(name);
    const auto model = make(name, {3, 8, 8});
    testing::disturb(*model);
    model->to(at::kCPU, at::kDouble);
    model->eval();
    const at::Tensor images = random_tensor({3, 3, 8, 8}, "images").to(at::kDouble);
    const at::Tensor labels = testing::random_labels(3, 10);
    const std::vector<at::Tensor> parameters = model->parameters();
    std::vector<at::Tensor> directions;
    for (const NamedTensor& parameter : model->named_parameters()) {
      directions.push_back(random_tensor(parameter.tensor.sizes(), parameter.name).to(at::kDouble));
    }
    const auto slope = [&](bool twice) {
      const at::Tensor loss = at::cross_entropy_loss(model->forward(images), labels);
      const auto gradients = torch::autograd::grad({loss}, parameters, {}, true, /*create_graph=*/twice);
      at::Tensor sum = at::zeros({}, at::kDouble);
      for (std::size_t i = 0; i < gradients.size(); ++i) sum = sum + (gradients[i] * directions[i]).sum();
      return sum;
    };
    const auto second = torch::autograd::grad({slope(true)}, parameters);
    double curvature = 0.0;
    for (std::size_t i = 0; i < second.size(); ++i) curvature += (second[i] * directions[i]).sum().item<double>();
    const auto slope_at = [&](double distance) {
      const auto move = [&](double by) {
        const at::NoGradGuard no_grad;
        for (std::size_t i = 0; i < parameters.size(); ++i) parameters[i].add_(directions[i], by);
      };
      move(distance);
      const double result = slope(false).item<double>();
      move(-distance);
      return result;
    };
    const double h = 1e-6, difference = (slope_at(h) - slope_at(-h)) / (2 * h);
    EXPECT_GT(std::abs(curvature), 1e-3);
    EXPECT_NEAR(curvature, difference, 1e-4 * std::abs(difference));
  }
}

TEST(Architectures, TheStemFollowsTheImageUnlessItIsGiven) {
  const auto first_of = [](const std::string& name, std::int64_t side, const std::string& stem) {
    return make_model(ModelConfig{.name = name, .stem = stem}, {3, side, side}, 5, 1)->parameters()[0].size(2);
  };
  EXPECT_EQ(first_of("resnet18", 95, "auto"), 3);
  EXPECT_EQ(first_of("resnet18", 96, "auto"), 7);
  EXPECT_EQ(first_of("resnet18", 96, "cifar"), 3);
  EXPECT_EQ(first_of("resnet18", 32, "imagenet"), 7);
  // The mobile networks have torchvision's at any size; the shapes of their weights are the same, their maps are not.
  const auto model_of = [](const std::string& stem) {
    auto model = make_model(ModelConfig{.name = "mobilenet_v2", .stem = stem}, {3, 32, 32}, 5, 1);
    model->eval();
    return model;
  };
  const at::NoGradGuard no_grad;
  const at::Tensor images = random_tensor({2, 3, 32, 32}, "images");
  const at::Tensor automatic = model_of("auto")->features(images);
  EXPECT_TRUE(at::equal(automatic, model_of("imagenet")->features(images)));
  EXPECT_FALSE(at::equal(automatic, model_of("cifar")->features(images)));
}

TEST(Architectures, VisionTransformersCutImagesIntoSuitablePatches) {
  const auto patch_of = [](std::int64_t height, std::int64_t width) {
    const auto model = find_model("vit_tiny").make({{1, height, width}, 5, 0, Stem::cifar, {}});
    for (const NamedTensor& parameter : model->named_parameters()) {
      if (parameter.name == "conv_proj.weight") return parameter.tensor.size(3);
    }
    return std::int64_t{0};
  };
  EXPECT_EQ(patch_of(8, 8), 2);
  EXPECT_EQ(patch_of(28, 28), 4);
  EXPECT_EQ(patch_of(32, 32), 4);
  EXPECT_EQ(patch_of(64, 64), 8);
  EXPECT_EQ(patch_of(64, 32), 8);
  EXPECT_EQ(patch_of(224, 224), 16);
  EXPECT_EQ(patch_of(30, 30), 2);
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
  const std::map<std::string, int> norm_layers = {
      {"cnn", 3},       {"mlp", 0},           {"resnet20", 19},        {"resnext", 31},
      {"resnet50", 53}, {"mobilenet_v2", 52}, {"efficientnet_b0", 49}, {"vit_tiny", 0}};
  for (const auto& [name, count] : norm_layers) {
    int calls = 0;
    const auto model = make_model(ModelConfig{.name = name}, {1, 8, 8}, 3, 1,
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
  const std::string patches = message_of([] { make("vit_b_16", {3, 40, 32}); });
  EXPECT_NE(patches.find("16x16 pixels, but the data set has 40x32 pixels"), std::string::npos) << patches;
  EXPECT_NE(message_of([] { make("vit_tiny", {1, 29, 29}); }).find("multiples of 2"), std::string::npos);
  const auto with_stem = [](const std::string& name, const std::string& stem) {
    return message_of([&] { make_model(ModelConfig{.name = name, .stem = stem}, {3, 32, 32}, 10, 1); });
  };
  EXPECT_NE(with_stem("resnet20", "cifar").find("resnet20 has one stem"), std::string::npos);
  EXPECT_NE(with_stem("resnet18", "none").find("'none' is not auto, cifar or imagenet"), std::string::npos);
}

TEST(Registry, TheKeyNamesEveryNetwork) {
  for (const ConfigKeyInfo& key : list_config_keys()) {
    if (key.name != "model.name") continue;
    std::string::size_type last = 0;
    for (const ModelEntry& entry : model_table()) {
      const auto found = key.meaning.find(std::string(entry.name), last);
      EXPECT_NE(found, std::string::npos) << entry.name << " is missing, or not in the table's order: " << key.meaning;
      last = found == std::string::npos ? last : found;
      EXPECT_NE(key.meaning.find(std::string(entry.alias)), std::string::npos);
    }
    return;
  }
  FAIL() << "there is no key model.name";
}

}  // namespace
}  // namespace sage
