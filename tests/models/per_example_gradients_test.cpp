#include "models/per_example_gradients.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "models/attention.h"
#include "models/oracle.h"
#include "models/registry.h"

namespace sage {
namespace {

using testing::oracle_gradients;
using testing::random_labels;
using testing::random_tensor;
using testing::worst_relative_error;

using Scope = std::vector<std::string>;

/// A stem, the layer under test, a mean over pixels and the head.
class OneLayer : public Classifier {
 public:
  using MakeLayer = std::function<std::shared_ptr<Layer>(std::int64_t channels)>;
  OneLayer(const InputShape& shape, const MakeLayer& make_layer) : Classifier(shape, 4) {
    stem_ = register_child("stem", std::make_shared<Conv2d>(shape.channels, 8, ConvolutionOptions{.bias = true}));
    tested_ = register_child("tested", make_layer(8));
    add_head(tested_->weight().size(0));
    initialize_parameters(*this, 3);
    testing::disturb(*this);
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    // Not linear after the layer: otherwise its output gradient would be the same at all pixels.
    return tested_->forward(at::relu(stem_->forward(images))).square().mean(at::IntArrayRef{2, 3});
  }

 private:
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<Layer> tested_;
};

struct Data {
  at::Tensor images, labels;
};

Data make_data(const Classifier& model, std::int64_t count) {
  const InputShape& shape = model.input_shape();
  return {random_tensor({count, shape.channels, shape.height, shape.width}, "images"),
          random_labels(count, model.class_count())};
}

/// rows, projection, norms and probabilities against one backward pass per example, in float32 and float64.
void check_against_oracle(Classifier& model, const Scope& scope, std::int64_t count, std::int64_t chunk_size,
                          double label_smoothing) {
  const Data data = make_data(model, count);
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    SCOPED_TRACE(type == at::kFloat ? "float32" : "float64");
    model.to(at::kCPU, type);
    PerExampleGradients engine(model, scope, label_smoothing, chunk_size);
    const at::Tensor images = data.images.to(type);
    const at::Tensor expected = oracle_gradients(model, engine.slices(), images, data.labels, label_smoothing);
    const double tolerance = type == at::kFloat ? 1e-4 : 1e-10;
    const std::int64_t dimension = engine.dimension();
    ASSERT_EQ(expected.size(1), dimension);

    // Rows in the middle of a larger buffer, which starts as not a number.
    const auto options = images.options();
    const at::Tensor buffer = at::full({count + 2, dimension + 3}, std::numeric_limits<double>::quiet_NaN(), options);
    at::Tensor rows = buffer.narrow(0, 1, count).narrow(1, 2, dimension);
    at::Tensor probabilities = at::zeros({count, model.class_count()}, at::kFloat);
    engine.write(images, data.labels, rows, probabilities);
    EXPECT_LT(worst_relative_error(rows, expected), tolerance);
    if (type == at::kDouble) {
      for (const ParameterSlice& slice : engine.slices()) {
        const auto part = [&slice](const at::Tensor& whole) { return whole.narrow(1, slice.offset, slice.count); };
        EXPECT_LT(worst_relative_error(part(rows), part(expected)), 1e-8) << slice.name;
      }
    }
    EXPECT_EQ(buffer.isnan().sum().item<std::int64_t>(), (count + 2) * (dimension + 3) - count * dimension);
    {
      const at::NoGradGuard no_grad;
      model.eval();
      EXPECT_TRUE(at::allclose(probabilities, at::softmax(model.forward(images), 1).to(at::kFloat), 1e-5, 1e-6));
      model.train();
    }

    // A sketch with strided rows.
    const std::int64_t sketch_rows = 3;
    const at::Tensor sketch = at::arange(sketch_rows * (dimension + 1), options)
                                  .sin_()
                                  .view({sketch_rows, dimension + 1})
                                  .narrow(1, 1, dimension);
    at::Tensor squared_norms = at::zeros({count}, at::kFloat), again = at::zeros_like(probabilities);
    const at::Tensor projected = engine.project(images, data.labels, sketch, squared_norms, again);
    // Relative to ||S|| ||g||, since S g itself may be small by chance.
    const double scale = sketch.to(at::kDouble).square().sum().sqrt().item<double>();
    const at::Tensor error = (projected.to(at::kDouble) - expected.to(at::kDouble).mm(sketch.to(at::kDouble).t()));
    const at::Tensor norms = expected.to(at::kDouble).square().sum(1).sqrt();
    EXPECT_LT((error.square().sum(1).sqrt() / norms).max().item<double>(), tolerance * scale);
    EXPECT_TRUE(at::allclose(squared_norms.to(at::kDouble), norms.square(), 1e-4, 0.0));
    EXPECT_TRUE(at::equal(again, probabilities));

    // Nothing of the model has changed, and a repeat has the same bits.
    EXPECT_TRUE(model.is_training());
    for (const at::Tensor& parameter : model.parameters()) {
      EXPECT_TRUE(parameter.requires_grad() && !parameter.grad().defined());
    }
    at::Tensor repeated = at::empty({count, dimension}, options);
    engine.write(images, data.labels, repeated);
    EXPECT_TRUE(at::equal(repeated, rows));
    EXPECT_TRUE(at::equal(engine.project(images, data.labels, sketch), projected));
  }
  model.to(at::kCPU, at::kFloat);
}

struct LayerCase {
  std::string name;
  OneLayer::MakeLayer make;
};

void PrintTo(const LayerCase& layer_case, std::ostream* stream) { *stream << layer_case.name; }

class LayerOracle : public ::testing::TestWithParam<LayerCase> {};

TEST_P(LayerOracle, EqualsOneBackwardPassPerExample) {
  OneLayer model({2, 12, 11}, GetParam().make);
  check_against_oracle(model, {"full"}, 5, 2, 0.0);
  check_against_oracle(model, {"tested.*"}, 5, 3, 0.1);
}

OneLayer::MakeLayer convolution(std::int64_t outputs, const ConvolutionOptions& options) {
  return [=](std::int64_t channels) { return std::make_shared<Conv2d>(channels, outputs, options); };
}

INSTANTIATE_TEST_SUITE_P(
    Layers, LayerOracle,
    ::testing::Values(
        LayerCase{"plain", convolution(6, {.padding = 1, .bias = true})}, LayerCase{"no_bias", convolution(6, {})},
        LayerCase{"pointwise", convolution(6, {.kernel = 1})},
        LayerCase{"pointwise_strided", convolution(6, {.kernel = 1, .stride = 2})},
        LayerCase{"strided", convolution(6, {.stride = 2, .padding = 1, .bias = true})},
        LayerCase{"dilated", convolution(6, {.padding = 2, .dilation = 2, .bias = true})},
        LayerCase{"grouped", convolution(12, {.padding = 1, .groups = 4, .bias = true})},
        LayerCase{"depthwise", convolution(8, {.padding = 1, .groups = 8})},
        LayerCase{"depthwise_wide", convolution(8, {.kernel = 5, .padding = 2, .groups = 8, .bias = true})},
        LayerCase{"depthwise_strided", convolution(8, {.kernel = 5, .stride = 2, .padding = 1, .groups = 8})},
        LayerCase{"depthwise_dilated", convolution(8, {.padding = 2, .dilation = 2, .groups = 8})},
        LayerCase{"depthwise_multiplied", convolution(16, {.padding = 1, .groups = 8})},
        LayerCase{"all", convolution(12, {.stride = 3, .padding = 2, .dilation = 2, .groups = 2, .bias = true})},
        LayerCase{"batch_norm", [](std::int64_t channels) { return std::make_shared<BatchNorm2d>(channels); }}),
    [](const auto& information) { return information.param.name; });

/// A stem whose pixels are tokens, the layers of a transformer under test, and the head on the first token.
class Tokens : public Classifier {
 public:
  Tokens() : Classifier({2, 5, 4}, 4) {
    stem_ = register_child("stem", std::make_shared<Conv2d>(2, 12, ConvolutionOptions{.bias = true}));
    token_ = register_child("class_token", std::make_shared<ClassToken>(12));
    position_ = register_child("pos_embedding", std::make_shared<PositionEmbedding>(7, 12));
    norm_ = register_child("norm", std::make_shared<LayerNorm>(12));
    attention_ = register_child("self_attention", std::make_shared<MultiheadAttention>(12, 3));
    inner_ = register_child("inner", std::make_shared<Linear>(12, 9, LinearOptions{.bias = false}));
    outer_ = register_child("outer", std::make_shared<Linear>(9, 12));
    last_norm_ = register_child("last_norm", std::make_shared<LayerNorm>(12));
    add_head(12, {.name = "heads.head"});
    initialize_parameters(*this, 3);
    testing::disturb(*this);
  }

 protected:
  at::Tensor compute_features(const at::Tensor& images) override {
    const at::Tensor pixels = stem_->forward(images).flatten(2).transpose(1, 2);
    const at::Tensor x = position_->forward(token_->forward(pixels));
    const at::Tensor y = x + attention_->attend(norm_->forward(x));
    return last_norm_->forward((y + outer_->forward(at::relu(inner_->forward(y)))).select(1, 0));
  }

 private:
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<ClassToken> token_;
  std::shared_ptr<PositionEmbedding> position_;
  std::shared_ptr<LayerNorm> norm_, last_norm_;
  std::shared_ptr<MultiheadAttention> attention_;
  std::shared_ptr<Linear> inner_, outer_;
};

TEST(TransformerLayers, EqualOneBackwardPassPerExample) {
  Tokens model;
  check_against_oracle(model, {"full"}, 5, 2, 0.0);
  check_against_oracle(model, {"class_token", "pos_embedding"}, 5, 3, 0.1);
  check_against_oracle(model, {"self_attention.*"}, 3, 3, 0.0);
  check_against_oracle(model, {"self_attention.in_proj_bias", "norm.weight", "outer.bias"}, 3, 2, 0.0);
  check_against_oracle(model, {"classifier"}, 3, 2, 0.0);
}

class ModelOracle : public ::testing::TestWithParam<std::string> {};

TEST_P(ModelOracle, EqualsOneBackwardPassPerExample) {
  const auto model = make_model(ModelConfig{.name = GetParam()}, {3, 8, 8}, 10, 7);
  testing::disturb(*model);
  check_against_oracle(*model, {"full"}, 3, 2, 0.05);
}

TEST_P(ModelOracle, ClassifierScopeEqualsOneBackwardPassPerExample) {
  const auto model = make_model(ModelConfig{.name = GetParam()}, {1, 8, 8}, 10, 7);
  testing::disturb(*model);
  check_against_oracle(*model, {"classifier"}, 5, 2, 0.1);
}

INSTANTIATE_TEST_SUITE_P(Models, ModelOracle,
                         ::testing::Values("cnn", "mlp", "resnet20", "resnet18", "resnext29_32x4d", "mobilenet_v2",
                                           "efficientnet_b0", "vit_tiny"),
                         [](const auto& information) { return information.param; });

TEST(PerExampleGradients, PartsOfTheLargestNetworksWork) {
  const auto resnet = make_model(ModelConfig{.name = "resnet50", .stem = "imagenet"}, {3, 32, 32}, 10, 7);
  testing::disturb(*resnet);
  check_against_oracle(*resnet, {"conv1.weight", "layer4.2.bn3.*", "layer3.0.downsample.*", "fc.bias"}, 2, 2, 0.0);
  const auto transformer = make_model(ModelConfig{.name = "vit_b_16"}, {3, 16, 16}, 10, 7);
  testing::disturb(*transformer);
  check_against_oracle(*transformer,
                       {"class_token", "encoder.pos_embedding", "encoder.layers.encoder_layer_11.*_proj*"}, 2, 2, 0.0);
}

TEST(PerExampleGradients, TheClassifierIsTheLastLayerWhateverItsName) {
  const std::map<std::string, std::string> heads = {{"resnet20", "fc"},
                                                    {"mobilenet_v2", "classifier.1"},
                                                    {"efficientnet_b0", "classifier.1"},
                                                    {"vit_tiny", "heads.head"}};
  for (const auto& [name, head] : heads) {
    const auto model = make_model(ModelConfig{.name = name}, {3, 8, 8}, 10, 7);
    EXPECT_EQ(model->head_name(), head);
    const PerExampleGradients engine(*model, {"classifier"}, 0.0, 2);
    ASSERT_EQ(engine.slices().size(), 2U) << name;
    EXPECT_EQ(engine.slices()[0].name, head + ".weight");
    EXPECT_EQ(engine.slices()[1].name, head + ".bias");
    EXPECT_EQ(engine.dimension(), (model->feature_count() + 1) * 10);
    EXPECT_TRUE(engine.is_forward_only());
    EXPECT_EQ(model->named_parameters().back().name, head + ".bias");
    EXPECT_EQ(PerExampleGradients(*model, {"full"}, 0.0, 2).dimension(), parameter_count(*model));
  }
}

std::unique_ptr<Classifier> make_cnn_for_digits() {
  auto model = make_model(ModelConfig{.name = "cnn", .width = 8}, {1, 8, 8}, 10, 7);
  testing::disturb(*model);
  return model;
}

TEST(PerExampleGradients, ChannelsLastGivesTheSameColumns) {
  const auto model = make_model(ModelConfig{.name = "resnet20"}, {3, 8, 8}, 10, 7);
  testing::disturb(*model);
  const Data data = make_data(*model, 4);
  PerExampleGradients engine(*model, {"full"}, 0.0, 2);
  const at::Tensor expected = oracle_gradients(*model, engine.slices(), data.images, data.labels, 0.0);
  model->to(at::kCPU, at::kFloat, at::MemoryFormat::ChannelsLast);
  at::Tensor rows = at::zeros_like(expected);
  engine.write(data.images.contiguous(at::MemoryFormat::ChannelsLast), data.labels, rows);
  EXPECT_LT(worst_relative_error(rows, expected), 1e-4);
}

TEST(PerExampleGradients, TheFactoredFormEqualsTheRows) {
  const auto model = make_cnn_for_digits();
  const Data data = make_data(*model, 9);
  PerExampleGradients engine(*model, {"classifier"}, 0.1, 4);
  ASSERT_TRUE(engine.is_forward_only());
  ASSERT_EQ(engine.dimension(), 33 * 10);
  ASSERT_EQ(engine.slices().size(), 2U);
  EXPECT_EQ(engine.slices()[0].name, "fc.weight");
  EXPECT_EQ(engine.slices()[1].name, "fc.bias");
  EXPECT_EQ(engine.slices()[1].offset, 320);

  at::Tensor rows = at::zeros({9, 330}), from_factors = at::zeros({9, 330}), probabilities = at::zeros({9, 10});
  engine.write(data.images, data.labels, rows, probabilities);
  const ClassifierFactors factors = engine.features_and_residuals(data.images, data.labels);
  engine.write_from_factors(factors.features, factors.residuals, from_factors);
  EXPECT_TRUE(at::equal(rows, from_factors));
  EXPECT_TRUE(at::equal(factors.probabilities, probabilities));
  EXPECT_LT(factors.residuals.sum(1).abs().max().item<double>(), 1e-6);
  EXPECT_FALSE(factors.features.requires_grad());

  const at::Tensor sketch = random_tensor({6, 330}, "sketch");
  at::Tensor norms = at::zeros({9});
  const at::Tensor projected = engine.project_from_factors(factors.features, factors.residuals, sketch, norms);
  EXPECT_TRUE(at::allclose(projected, rows.mm(sketch.t()), 1e-4, 1e-5));
  const at::Tensor formula = factors.residuals.square().sum(1) * (factors.features.square().sum(1) + 1);
  EXPECT_TRUE(at::allclose(norms, formula, 1e-5, 0.0));
  EXPECT_TRUE(at::allclose(norms, rows.square().sum(1), 1e-5, 0.0));

  PerExampleGradients full(*model, {"full"}, 0.1, 4);
  EXPECT_FALSE(full.is_forward_only());
  EXPECT_THROW(full.features_and_residuals(data.images, data.labels), InternalError);
}

TEST(PerExampleGradients, ManyClassesAreProjectedInBlocks) {
  // 64 x 400 x 200 elements of scratch at once would pass the limit of 2^22: 163 classes at a time.
  const auto model = make_model(ModelConfig{.name = "mlp", .width = 6}, {1, 4, 4}, 200, 7);
  const Data data = make_data(*model, 64);
  PerExampleGradients engine(*model, {"classifier"}, 0.0, 64);
  at::Tensor rows = at::zeros({64, engine.dimension()});
  engine.write(data.images, data.labels, rows);
  const at::Tensor sketch = random_tensor({400, engine.dimension()}, "sketch");
  EXPECT_TRUE(at::allclose(engine.project(data.images, data.labels, sketch), rows.mm(sketch.t()), 1e-4, 1e-4));
}

TEST(PerExampleGradients, ProjectsIn16BitsWithTheErrorOf16Bits) {
  // Products of n terms of random signs, each rounded to 8 bits: a relative error near 2^-8, whatever n is.
  const auto model = make_model(ModelConfig{.name = "cnn", .width = 4}, {3, 8, 8}, 10, 7);
  const Data data = make_data(*model, 12);
  for (const char* scope : {"classifier", "full"}) {
    PerExampleGradients engine(*model, {scope}, 0.0, 5);
    const at::Tensor sketch = random_tensor({6, engine.dimension()}, "sketch");
    at::Tensor norms = at::zeros({12}), narrow_norms = at::zeros({12});
    const at::Tensor wide = engine.project(data.images, data.labels, sketch, norms);
    const at::Tensor narrow = engine.project(data.images, data.labels, sketch.to(at::kBFloat16), narrow_norms);
    EXPECT_EQ(narrow.scalar_type(), at::kFloat);
    const double error = (narrow - wide).norm().item<double>() / wide.norm().item<double>();
    EXPECT_LT(error, 0.02) << scope;
    EXPECT_GT(error, 1e-5) << scope << ": it was rounded at all";
    EXPECT_TRUE(at::equal(norms, narrow_norms)) << "norms stay float32";
  }
}

TEST(PerExampleGradients, ScopesSelectParametersInTheirOrder) {
  const auto model = make_model(ModelConfig{.name = "resnet18"}, {3, 8, 8}, 10, 7);
  const auto names_of = [&model](const Scope& scope) {
    std::vector<std::string> names;
    std::int64_t end = 0;
    const PerExampleGradients engine(*model, scope, 0.0, 2);
    for (const ParameterSlice& slice : engine.slices()) {
      EXPECT_EQ(slice.offset, end);
      end += slice.count;
      names.push_back(slice.name);
    }
    return names;
  };
  EXPECT_EQ(names_of({"classifier"}), (Scope{"fc.weight", "fc.bias"}));
  EXPECT_EQ(names_of({"fc.*", "layer4.0.downsample.?.weight"}),
            (Scope{"layer4.0.downsample.0.weight", "layer4.0.downsample.1.weight", "fc.weight", "fc.bias"}));
  EXPECT_EQ(names_of({"bn1.bias", "conv1.weight"}), (Scope{"conv1.weight", "bn1.bias"}));
  EXPECT_EQ(PerExampleGradients(*model, {"full"}, 0.0, 2).dimension(), parameter_count(*model));
  try {
    PerExampleGradients(*model, {"fc.*", "layer5.*"}, 0.0, 2);
    FAIL() << "a pattern without a match was accepted";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("'layer5.*'"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("layer4.1.conv2.weight"), std::string::npos);
  }
  EXPECT_THROW(PerExampleGradients(*model, {}, 0.0, 2), ConfigError);
  EXPECT_THROW(PerExampleGradients(*model, {"full"}, 0.0, 0), ConfigError);
  EXPECT_THROW(PerExampleGradients(*model, {"full"}, 1.0, 2), ConfigError);
}

TEST(PerExampleGradients, PartsOfLayersAndParallelBranchesWork) {
  const auto model = make_model(ModelConfig{.name = "resnext"}, {3, 8, 8}, 10, 7);
  testing::disturb(*model);
  check_against_oracle(*model, {"layer2.0.downsample.0.weight", "layer2.0.conv2.weight", "*.bn3.bias"}, 3, 2, 0.0);
  check_against_oracle(*model, {"layer3.?.bn2.weight", "fc.bias"}, 3, 2, 0.0);
  OneLayer with_biases({2, 12, 11}, convolution(6, {.padding = 1, .bias = true}));
  check_against_oracle(with_biases, {"*.bias"}, 3, 2, 0.0);
  check_against_oracle(with_biases, {"fc.weight"}, 3, 2, 0.0);
}

TEST(PerExampleGradients, DoNotDependOnTheChunkSizeOrTheOtherExamples) {
  const auto model = make_cnn_for_digits();
  const Data data = make_data(*model, 7);
  PerExampleGradients single(*model, {"full"}, 0.0, 1), whole(*model, {"full"}, 0.0, 100);
  at::Tensor a = at::zeros({7, single.dimension()}), b = at::zeros_like(a);
  single.write(data.images, data.labels, a);
  whole.write(data.images, data.labels, b);
  EXPECT_LT(worst_relative_error(a, b), 1e-5);
}

TEST(PerExampleGradients, RefuseWrongShapes) {
  const auto model = make_cnn_for_digits();
  const Data data = make_data(*model, 3);
  PerExampleGradients engine(*model, {"full"}, 0.0, 2);
  const std::int64_t dimension = engine.dimension();
  EXPECT_THROW(engine.write(data.images, data.labels, at::zeros({3, dimension - 1})), InternalError);
  EXPECT_THROW(engine.write(data.images, data.labels, at::zeros({2, dimension})), InternalError);
  EXPECT_THROW(engine.write(data.images, data.labels, at::zeros({dimension, 3}).t()), InternalError);
  EXPECT_THROW(engine.project(data.images, data.labels, at::zeros({4, dimension + 1})), InternalError);
  EXPECT_TRUE(model->is_training());
}

TEST(PerExampleGradients, WorkWhereGradientsAreSwitchedOffAndInEvalMode) {
  const auto model = make_cnn_for_digits();
  const Data data = make_data(*model, 3);
  PerExampleGradients engine(*model, {"full"}, 0.0, 2);
  at::Tensor a = at::zeros({3, engine.dimension()}), b = at::zeros_like(a);
  engine.write(data.images, data.labels, a);
  model->eval();
  const at::NoGradGuard no_grad;
  engine.write(data.images, data.labels, b);
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_FALSE(model->is_training());
}

TEST(Patterns, MatchAsShellsDo) {
  EXPECT_TRUE(matches_pattern("layer1.0.conv1.weight", "layer1.*"));
  EXPECT_TRUE(matches_pattern("layer1.0.conv1.weight", "*conv?.w*t"));
  EXPECT_TRUE(matches_pattern("abc", "abc"));
  EXPECT_TRUE(matches_pattern("", "*"));
  EXPECT_TRUE(matches_pattern("aXbXb", "a*b"));
  EXPECT_FALSE(matches_pattern("abc", "ab"));
  EXPECT_FALSE(matches_pattern("abc", "ab?d"));
  EXPECT_FALSE(matches_pattern("abc", "abc?"));
  EXPECT_FALSE(matches_pattern("", "?"));
}

/// A value of /proc/self/status in bytes.
double status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

TEST(PerExampleGradients, NeverHoldChunkTimesDimension) {
  const std::int64_t chunk_size = 16;
  const auto model = make_model(ModelConfig{.name = "resnet18"}, {3, 16, 16}, 10, 7);
  const Data data = make_data(*model, chunk_size);
  PerExampleGradients engine(*model, {"full"}, 0.0, chunk_size);
  const at::Tensor sketch = at::ones({2, engine.dimension()});
  malloc_trim(0);                                 // what other tests have freed but still hold would be taken again
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts anew from here
  const double before = status_bytes("VmRSS");
  engine.project(data.images, data.labels, sketch);
  const double growth = status_bytes("VmHWM") - before;
  const double chunk_times_dimension = 4.0 * static_cast<double>(chunk_size * engine.dimension());
  ASSERT_GT(before, 0.0);
  RecordProperty("growth_mib", static_cast<int>(growth / 1048576));
  // The largest layer (512 x 512 x 9) is a fifth of all parameters: not even that is held whole. Activations included.
  EXPECT_LT(growth, 0.15 * chunk_times_dimension);
  const double before_control = status_bytes("VmHWM");
  const at::Tensor control = at::ones({std::int64_t{1} << 26}, at::kFloat);
  EXPECT_GT(status_bytes("VmHWM") - before_control, 0.5 * static_cast<double>(control.nbytes())) << "is it measured?";
}

}  // namespace
}  // namespace sage
