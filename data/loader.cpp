#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/trace.h"

namespace sage {

class Loader::Impl {
 public:
  Impl(const ImageStore& store, std::span<const std::int64_t> labels, EpochPlan plan, const AugmentOptions& augment,
       std::int64_t workers, std::int64_t prefetch)
      : store_(store), labels_(labels), plan_(std::move(plan)), augment_(augment) {
    require(workers >= 0, "Loader: the number of workers must not be negative");
    require(prefetch >= 1, "Loader: at least one batch is prepared ahead");
    check_augment_options(augment, {store.height(), store.width()});
    if (!store.device().is_cpu() && !store.is_staging(augment)) workers = 0;
    workers = std::min(workers, plan_.steps());
    window_ = std::max(workers, prefetch);
    try {
      for (std::int64_t i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
    } catch (...) {  // the system gave no thread: those started must not outlive this object
      stop();
      throw;
    }
  }
  ~Impl() { stop(); }

  std::int64_t steps() const { return plan_.steps(); }

  at::Tensor images_of(std::span<const std::int64_t> ids, bool parallel) const {
    const Augmentation augmentation{augment_, plan_.seed(), plan_.epoch()};
    return store_.finish(ids, store_.stage(ids, &augmentation, parallel), parallel);
  }

  std::optional<Batch> next() {
    if (delivered_ == plan_.steps()) return std::nullopt;
    if (threads_.empty()) {
      const std::int64_t step = std::exchange(delivered_, plan_.steps());  // stays so if this throws
      Prepared prepared = prepare(step, /*parallel=*/true);
      finish(prepared, /*parallel=*/true);
      delivered_ = step + 1;
      return std::move(prepared.batch);
    }
    Prepared prepared;
    {
      std::unique_lock lock(mutex_);
      ready_.wait(lock, [this] { return prepared_.contains(delivered_); });
      prepared = std::move(prepared_.extract(delivered_).mapped());
      ++delivered_;
      if (prepared.error) delivered_ = plan_.steps();
    }
    room_.notify_all();
    if (prepared.error) {
      stop();
      std::rethrow_exception(prepared.error);
    }
    if (!store_.device().is_cpu()) finish(prepared, /*parallel=*/true);
    return std::move(prepared.batch);
  }

 private:
  struct Prepared {
    std::optional<Batch> batch;
    std::exception_ptr error;
    StagedImages staged;
    std::vector<std::int64_t> ids;  // of the staged images: the batch's, and the one that its last is mixed with
    Mix mix;
  };

  std::vector<std::int64_t> labels_of(std::span<const std::int64_t> ids) const {
    std::vector<std::int64_t> labels;
    labels.reserve(ids.size());
    for (const std::int64_t id : ids) {
      require(id >= 0 && id < static_cast<std::int64_t>(labels_.size()), "Loader: no label for an example id");
      labels.push_back(labels_[static_cast<std::size_t>(id)]);
    }
    return labels;
  }

  /// What the CPU has to do.
  Prepared prepare(std::int64_t step, bool parallel) const {
    const auto ids = plan_.local_batch(step), global = plan_.global_batch(step);
    Prepared prepared;
    Batch& batch = prepared.batch.emplace();
    batch.step = step;
    batch.ids.assign(ids.begin(), ids.end());
    batch.global_count = static_cast<std::int64_t>(global.size());
    prepared.ids = batch.ids;
    if (augment_.mix.any() && !ids.empty()) {
      prepared.mix = choose_mix(augment_.mix, plan_.seed(), plan_.epoch(), plan_.step_of_epoch(step),
                                {store_.height(), store_.width()});
    }
    if (prepared.mix.kind != Mix::Kind::none) {
      const auto behind = static_cast<std::size_t>(plan_.local_range(step).end) % global.size();
      prepared.ids.push_back(global[behind]);
    }
    const Augmentation augmentation{augment_, plan_.seed(), plan_.epoch()};
    prepared.staged = store_.stage(prepared.ids, &augmentation, parallel);
    return prepared;
  }

  /// What the device has to do.
  void finish(Prepared& prepared, bool parallel) const {
    Batch& batch = *prepared.batch;
    const std::vector<std::int64_t> labels = labels_of(prepared.ids);
    const std::span<const std::int64_t> all = labels;
    batch.labels = to_device(all.first(batch.ids.size()), store_.device());
    batch.images = store_.finish(prepared.ids, prepared.staged, parallel);
    prepared.staged = {};
    if (prepared.mix.kind == Mix::Kind::none) return;
    batch.other_labels = to_device(all.last(batch.ids.size()), store_.device());
    batch.other_ids.assign(prepared.ids.end() - static_cast<std::ptrdiff_t>(batch.ids.size()), prepared.ids.end());
    batch.own_part = prepared.mix.own_part;
    batch.images = mix_with_next(batch.images, prepared.mix);
  }

  void work() {
    trace::name_thread("loader");
    for (;;) {
      std::int64_t step = 0;
      {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return stopping_ || claimed_ == plan_.steps() || claimed_ < delivered_ + window_; });
        if (stopping_ || claimed_ == plan_.steps()) return;
        step = claimed_++;
      }
      Prepared prepared;
      const trace::Span span("prepare batch");
      try {
        prepared = prepare(step, /*parallel=*/false);
        if (store_.device().is_cpu()) finish(prepared, /*parallel=*/false);
      } catch (...) {
        prepared.error = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        prepared_.emplace(step, std::move(prepared));
      }
      ready_.notify_one();
    }
  }

  void stop() noexcept {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  const ImageStore& store_;
  std::span<const std::int64_t> labels_;
  EpochPlan plan_;
  AugmentOptions augment_;
  std::int64_t window_ = 0;  // batches claimed but not delivered, at most

  std::mutex mutex_;  // guards all below but threads_
  std::condition_variable ready_, room_;
  std::map<std::int64_t, Prepared> prepared_;
  std::int64_t claimed_ = 0, delivered_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

Loader::Loader(const ImageStore& store, std::span<const std::int64_t> labels, EpochPlan plan,
               const AugmentOptions& augment, std::int64_t workers, std::int64_t prefetch)
    : impl_(std::make_unique<Impl>(store, labels, std::move(plan), augment, workers, prefetch)) {}
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;
Loader::~Loader() = default;
std::optional<Batch> Loader::next() { return impl_->next(); }
std::int64_t Loader::steps() const { return impl_->steps(); }
at::Tensor Loader::images_of(std::span<const std::int64_t> ids) const { return impl_->images_of(ids, true); }

}  // namespace sage
