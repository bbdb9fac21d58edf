#include "training/checkpoint_writer.h"

#include "core/log.h"
#include "core/trace.h"
#include "distributed/signals.h"
#include "training/resume.h"

namespace sage {

CheckpointWriter::CheckpointWriter(std::filesystem::path folder, std::int64_t keep, Announce announce)
    : folder_(std::move(folder)), keep_(keep), announce_(std::move(announce)) {}

CheckpointWriter::~CheckpointWriter() {
  try {
    finish();
  } catch (const std::exception& error) {
    log::warning("a checkpoint was not written: {}", error.what());
  }
}

void CheckpointWriter::submit(CheckpointOrder order) {
  finish();
  under_way_ = std::async(std::launch::async, [this, order = std::move(order)] {
    block_signals();
    trace::name_thread("checkpoint writer");
    const auto begin = trace::Clock::now();
    write(order);
    if (trace::keeps_all()) trace::add("write checkpoint", begin, trace::Clock::now());
  });
}

bool CheckpointWriter::is_busy_after(std::chrono::milliseconds patience) const {
  return under_way_.valid() && under_way_.wait_for(patience) != std::future_status::ready;
}

void CheckpointWriter::check() {
  if (under_way_.valid() && under_way_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    under_way_.get();
  }
}

void CheckpointWriter::finish() {
  if (under_way_.valid()) under_way_.get();
}

void CheckpointWriter::write(const CheckpointOrder& order) const {
  order.copies.wait();
  if (order.best_model) {
    write_checkpoint(folder_ / "best_model.safetensors", order.state, CheckpointContent::weights_only);
  }
  if (!order.checkpoint) return;
  const auto path = checkpoint_path(folder_, checkpoint_name(order.state));
  write_checkpoint(path, order.state);
  if (announce_) announce_(path);
  remove_old_checkpoints(folder_, keep_);
}

}  // namespace sage
