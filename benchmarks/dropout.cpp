// A step of progressive data dropout (`dbpd`, ResNet-20, batch 128) that keeps a part f of the batch, against what it
// cannot do without: the scoring forward pass of the batch and a training step on f of it.
#include "training/dropout/dropout.h"
#include "benchmarks/measure.h"
#include "benchmarks/training_setup.h"

namespace sage::benchmarks {
namespace {

/// The first `count` examples of `batch`.
Batch first_of(const Batch& batch, std::int64_t count) {
  Batch part;
  part.images = batch.images.narrow(0, 0, count).clone(at::MemoryFormat::ChannelsLast);
  part.labels = batch.labels.narrow(0, 0, count).clone();
  part.ids.assign(batch.ids.begin(), batch.ids.begin() + count);
  part.global_count = count;
  return part;
}

void run(double kept_part, const std::string& precision) {
  const auto single = make_single_communicator(at::kCPU);
  auto experiment = resnet20_experiment(precision, false);
  DropoutConfig& config = experiment->config.dropout;
  config.mode = "dbpd";
  config.threshold = 0.0;  // hard is what is misclassified
  PhaseTimer timer;
  Learner learner(*experiment, make_network(*experiment, "resnet20", 0, *single), *single, timer);
  Batch batch = random_batch(*single);
  for (int i = 0; i < 30; ++i) learner.step(batch, 0.0, "benchmark");  // running statistics come to rest

  // Labels that the network gets right, but for the wanted part, which is spread over the batch.
  const Scored scored = learner.score(batch, {.precision = to_precision(precision, at::kCPU)});
  const at::Tensor wrong =
      at::arange(global_batch).mul(7).remainder(global_batch).lt(static_cast<double>(global_batch) * kept_part);
  batch.labels = scored.logits.argmax(1).add(wrong.to(at::kLong)).remainder(10);
  experiment->labels.assign(batch.labels.const_data_ptr<std::int64_t>(),
                            batch.labels.const_data_ptr<std::int64_t>() + global_batch);
  experiment->candidates = batch.ids;

  ProgressiveDropout dropout(*experiment, *single, timer, /*epochs=*/1000);
  const ImageStore store(experiment->dataset.train.images, std::vector<float>(3, 0.0F), std::vector<float>(3, 1.0F),
                         at::kCPU, true);
  const Loader loader(store, experiment->labels, EpochPlan(batch.ids, global_batch, 0, 1, 0, 0), {}, 0);
  std::int64_t kept = 0, steps = 0;
  const auto dropout_step = [&] {
    kept += dropout.step(learner, loader, batch, {.epoch = 0, .batch = steps}, 0.0, "benchmark");
    ++steps;
  };
  dropout_step();
  const Batch part = first_of(batch, kept);
  const auto seconds = interleaved_medians(
      9, {dropout_step, [&] { learner.score(batch, {.precision = to_precision(precision, at::kCPU)}); },
          [&] { learner.step(part, 0.0, "benchmark"); }, [&] { learner.step(batch, 0.0, "benchmark"); }});
  const bool full = precision == "float32";
  print_row({{"row", fmt::format("dropout step {} {}", precision, kept_part)},
             {"what", fmt::format("DBPD step, ResNet-20, batch 128{}, {:.1f} % kept", full ? "" : ", bf16 autocast",
                                  100.0 * static_cast<double>(kept) / static_cast<double>(steps * global_batch))},
             {"ours_seconds", seconds[0]},
             {"peer", "scoring forward + training step on what is kept"},
             {"peer_seconds", seconds[1] + seconds[2]},
             {"note", fmt::format("a step on everything: {:.3f} s", seconds[3])},
             {"target", full ? "<= 1.05" : ""}});
}

}  // namespace
}  // namespace sage::benchmarks

int main() {
  using namespace sage::benchmarks;
  keep_freed_memory();
  for (const double kept_part : {0.125, 0.25, 0.5}) run(kept_part, "float32");
  run(0.25, "bf16");
}
