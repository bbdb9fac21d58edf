// Helper of model_peer_test.py.
//   model_peer pass MODEL STEM CLASSES FOLDER    loads FOLDER/weights.safetensors, takes images and labels from
//                                                FOLDER/batch.safetensors and writes FOLDER/ours.safetensors: logits in
//                                                eval mode (float32) and in training mode (float64), and of the latter
//                                                the running statistics and a digest of each parameter's gradient
//   model_peer fresh MODEL STEM CLASSES FOLDER   writes FOLDER/ours.safetensors: mean, deviation and largest magnitude
//                                                of each parameter of a fresh network for images like those
#include <ATen/core/Reduction.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "models/registry.h"
#include "models/weights.h"

namespace {

using sage::NamedTensor;

std::vector<NamedTensor> pass(sage::Classifier& model, const at::Tensor& images, const at::Tensor& labels) {
  std::vector<NamedTensor> result;
  {
    const at::NoGradGuard no_grad;
    model.eval();
    result.push_back({"eval", model.forward(images)});
  }
  model.to(at::kCPU, at::kDouble);
  model.train();
  const at::Tensor logits = model.forward(images.to(at::kDouble));
  at::cross_entropy_loss(logits, labels, {}, at::Reduction::Sum).backward();
  result.push_back({"train", logits.detach()});
  for (const NamedTensor& parameter : model.named_parameters()) {
    const at::Tensor gradient = parameter.tensor.grad().contiguous().flatten();
    const at::Tensor norm = at::linalg_vector_norm(gradient, 2.0).view({1});
    const at::Tensor some = gradient.narrow(0, 0, std::min<std::int64_t>(256, gradient.numel()));
    result.push_back({"gradient/" + parameter.name, at::cat({norm, some})});
  }
  for (const NamedTensor& buffer : model.named_buffers()) result.push_back({"buffer/" + buffer.name, buffer.tensor});
  return result;
}

std::vector<NamedTensor> fresh(const sage::Classifier& model) {
  std::vector<NamedTensor> result;
  for (const NamedTensor& parameter : model.named_parameters()) {
    const at::Tensor values = parameter.tensor.detach().to(at::kDouble);
    const at::Tensor mean = values.mean();
    result.push_back({parameter.name, at::stack({mean, (values - mean).square().mean().sqrt(), values.abs().max()})});
  }
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string verb = argv[1];
  const std::filesystem::path folder = argv[5];
  try {
    std::map<std::string, at::Tensor> batch;
    for (auto& [name, tensor] :
         sage::read_safetensors(folder / "batch.safetensors", sage::Checksums::if_present).tensors) {
      batch[name] = tensor;
    }
    const at::Tensor& images = batch.at("images");
    const sage::ModelConfig config{.name = argv[2], .stem = argv[3]};
    const auto model =
        sage::make_model(config, {images.size(1), images.size(2), images.size(3)}, std::stoll(argv[4]), 3);
    if (verb == "pass") sage::load_pretrained(*model, folder / "weights.safetensors");
    sage::write_safetensors(folder / "ours.safetensors",
                            verb == "pass" ? pass(*model, images, batch.at("labels")) : fresh(*model));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
