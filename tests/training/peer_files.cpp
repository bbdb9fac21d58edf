// Helper of peer_test.py: writes files for other programs to read, and reads what they wrote.
//   peer_files write FOLDER     checkpoint.safetensors, a run folder's event files in train/
//   peer_files resume FOLDER    a second event file in train/ that starts over at step 3
//   peer_files read FILE        prints each tensor of a safetensors file: name, type, shape, sum
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "training/checkpoint.h"
#include "training/tensorboard.h"

namespace {

void write_checkpoint_file(const std::filesystem::path& path) {
  sage::TrainingState state;
  state.model = "cnn";
  state.dataset = "digits";
  state.class_count = 10;
  state.config_json = "{}";
  state.position.epoch = 3;
  const at::Tensor ramp = at::arange(6, at::TensorOptions().dtype(at::kDouble)).view({2, 3});
  for (const auto& [name, type] :
       {std::pair("F64", at::kDouble), std::pair("F32", at::kFloat), std::pair("F16", at::kHalf),
        std::pair("BF16", at::kBFloat16), std::pair("I64", at::kLong), std::pair("I32", at::kInt),
        std::pair("U8", at::kByte), std::pair("BOOL", at::kBool)}) {
    state.learner.model.push_back({name, ramp.to(type)});
  }
  state.learner.optimizer = {{"step", at::full({1}, 33, at::TensorOptions().dtype(at::kLong))}};
  state.subset_ids = std::vector<std::int64_t>{1, 5, 9};
  sage::write_checkpoint(path, state);
}

void write_events(const std::filesystem::path& folder) {
  sage::EventWriter writer(folder);
  for (int step = 0; step < 6; ++step) writer.scalar("loss", 1.0 / (1 + step), step);
  writer.scalar("accuracy", 0.75, 123456789012LL);
  const std::vector<float> values{-1.0F, 0.0F, 0.5F, 0.5F};
  writer.histogram("scores", values, 2);
  const std::vector<std::int64_t> sizes{3, 0, 2};
  writer.class_counts("classes", sizes, 2);
  // Planes of red, green and blue; 3 pixels wide, 2 high.
  const std::vector<std::int64_t> planes{255, 0, 0, 10, 40, 70, 0, 255, 0, 20, 50, 80, 0, 0, 255, 30, 60, 90};
  writer.image("samples", at::tensor(planes).view({3, 2, 3}).to(at::kByte), 2);
  writer.flush();
}

void resume_events(const std::filesystem::path& folder) {
  sage::EventWriter writer(folder, 3);
  for (int step = 3; step < 5; ++step) writer.scalar("loss", 100.0 + step, step);
  writer.flush();
}

void print_tensors(const std::filesystem::path& path) {
  for (const auto& [name, tensor] : sage::read_safetensors(path, sage::Checksums::if_present).tensors) {
    fmt::print("{} {} [{}] {}\n", name, c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), ","),
               tensor.to(at::kDouble).sum().item<double>());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string verb = argv[1];
  const std::filesystem::path path = argv[2];
  try {
    if (verb == "write") {
      write_checkpoint_file(path / "checkpoint.safetensors");
      write_events(path / "train");
    } else if (verb == "resume") {
      resume_events(path / "train");
    } else if (verb == "read") {
      print_tensors(path);
    } else {
      return 2;
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
