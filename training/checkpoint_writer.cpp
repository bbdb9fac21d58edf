#include "training/checkpoint_writer.h"

#include <fmt/format.h>

#include <exception>
#include <utility>

#include "core/log.h"
#include "core/trace.h"
#include "distributed/signals.h"
#include "training/resume.h"

namespace sage {
namespace {

constexpr auto patience_with_errors = std::chrono::seconds(1);  // while an exception passes

std::string files_of(const std::filesystem::path& folder, const CheckpointOrder& order) {
  const std::string best_model = order.best_model ? best_model_path(folder).string() : "";
  if (!order.checkpoint) return best_model;
  const std::string checkpoint = checkpoint_path(folder, checkpoint_name(order.state)).string();
  return order.best_model ? fmt::format("{} and {}", best_model, checkpoint) : checkpoint;
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::filesystem::path folder, std::int64_t keep, Announce announce)
    : place_(std::make_shared<const Place>(Place{std::move(folder), keep, std::move(announce)})) {}

CheckpointWriter::~CheckpointWriter() {
  try {
    if (std::uncaught_exceptions() > 0 && is_busy_after(patience_with_errors)) {
      thread_.detach();
      log::warning("{}: not written to the end, because of an error", files_);
      return;
    }
    finish();
  } catch (const std::exception& error) {
    log::warning("a checkpoint was not written: {}", error.what());
  }
}

void CheckpointWriter::submit(CheckpointOrder order) {
  finish();
  files_ = files_of(place_->folder, order);
  std::packaged_task<void()> task([place = place_, order = std::move(order)]() mutable {
    block_signals();
    trace::name_thread("checkpoint writer");
    const auto begin = trace::Clock::now();
    const CheckpointOrder taken = std::move(order);  // so that its memory is free when this is done
    write(*place, taken);
    if (trace::keeps_all()) trace::add("write checkpoint", begin, trace::Clock::now());
  });
  std::future<void> under_way = task.get_future();
  thread_ = std::thread(std::move(task));
  under_way_ = std::move(under_way);
}

bool CheckpointWriter::is_busy_after(std::chrono::milliseconds patience) const {
  return under_way_.valid() && under_way_.wait_for(patience) != std::future_status::ready;
}

void CheckpointWriter::check() {
  if (!is_busy_after(std::chrono::milliseconds(0))) finish();
}

void CheckpointWriter::finish() {
  if (!under_way_.valid()) return;
  thread_.join();
  under_way_.get();
}

void CheckpointWriter::write(const Place& place, const CheckpointOrder& order) {
  order.copies.wait();
  if (order.best_model) {
    write_checkpoint(best_model_path(place.folder), order.state, CheckpointContent::weights_only);
  }
  if (!order.checkpoint) return;
  const auto path = checkpoint_path(place.folder, checkpoint_name(order.state));
  write_checkpoint(path, order.state);
  if (place.announce) place.announce(path);
  remove_old_checkpoints(place.folder, place.keep);
}

}  // namespace sage
