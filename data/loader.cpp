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
  Impl(const ImageStore& store, std::span<const std::int64_t> labels, EpochPlan plan, AugmentOptions augment,
       std::int64_t workers, std::int64_t prefetch)
      : store_(store), labels_(labels), plan_(std::move(plan)), augment_(augment) {
    require(workers >= 0, "Loader: the number of workers must not be negative");
    require(prefetch >= 1, "Loader: at least one batch is prepared ahead");
    check_augment_options(augment, store.height(), store.width());
    if (!store.device().is_cpu()) workers = 0;
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
    return store_.augmented(ids, choose_augmentations(augment_, plan_.seed(), plan_.epoch(), ids), parallel);
  }

  std::optional<Batch> next() {
    if (delivered_ == plan_.steps()) return std::nullopt;
    if (threads_.empty()) {
      const std::int64_t step = std::exchange(delivered_, plan_.steps());  // stays so if make() throws
      Batch batch = make(step, /*parallel=*/true);
      delivered_ = step + 1;
      return batch;
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
    return std::move(prepared.batch);
  }

 private:
  struct Prepared {
    std::optional<Batch> batch;
    std::exception_ptr error;
  };

  Batch make(std::int64_t step, bool parallel) const {
    const auto ids = plan_.local_batch(step);
    Batch batch;
    batch.step = step;
    batch.ids.assign(ids.begin(), ids.end());
    batch.global_count = static_cast<std::int64_t>(plan_.global_batch(step).size());
    std::vector<std::int64_t> labels;
    labels.reserve(ids.size());
    for (const std::int64_t id : ids) {
      require(id >= 0 && id < static_cast<std::int64_t>(labels_.size()), "Loader: no label for an example id");
      labels.push_back(labels_[static_cast<std::size_t>(id)]);
    }
    batch.labels = to_device(labels, store_.device());
    batch.images = images_of(ids, parallel);
    return batch;
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
        prepared.batch = make(step, /*parallel=*/false);
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

Loader::Loader(const ImageStore& store, std::span<const std::int64_t> labels, EpochPlan plan, AugmentOptions augment,
               std::int64_t workers, std::int64_t prefetch)
    : impl_(std::make_unique<Impl>(store, labels, std::move(plan), augment, workers, prefetch)) {}
Loader::Loader(Loader&&) noexcept = default;
Loader& Loader::operator=(Loader&&) noexcept = default;
Loader::~Loader() = default;
std::optional<Batch> Loader::next() { return impl_->next(); }
std::int64_t Loader::steps() const { return impl_->steps(); }
at::Tensor Loader::images_of(std::span<const std::int64_t> ids) const { return impl_->images_of(ids, true); }

}  // namespace sage
