#include "core/whereabouts.h"

#include <algorithm>
#include <atomic>
#include <string_view>

namespace sage::whereabouts {
namespace {

std::atomic<std::int64_t> current_step{0};
std::atomic<const char*> current_activity{nullptr};
std::atomic<const char*> current_collective{nullptr};
// Signal handlers read them.
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

/// Appends to memory of the caller and drops what does not fit; calls nothing that a signal handler may not.
class Text {
 public:
  Text(char* buffer, std::size_t size) noexcept : buffer_(buffer), room_(size - 1) { buffer_[0] = '\0'; }

  void part(std::string_view before, std::string_view text) noexcept {
    if (length_ > 0) add(", ");
    add(before);
    add(text);
  }
  std::size_t length() const noexcept { return length_; }

 private:
  void add(std::string_view text) noexcept {
    const std::size_t count = std::min(text.size(), room_ - length_);
    std::copy_n(text.data(), count, buffer_ + length_);
    length_ += count;
    buffer_[length_] = '\0';
  }

  char* buffer_;
  std::size_t room_, length_ = 0;
};

}  // namespace

void set_step(std::int64_t step) noexcept { current_step.store(step, std::memory_order_relaxed); }
void set_activity(const char* activity) noexcept { current_activity.store(activity, std::memory_order_relaxed); }
void set_collective(const char* name) noexcept { current_collective.store(name, std::memory_order_relaxed); }

std::size_t write_to(char* buffer, std::size_t size) noexcept {
  if (size == 0) return 0;
  Text text(buffer, size);
  if (std::int64_t step = current_step.load(std::memory_order_relaxed); step > 0) {
    char digits[20];
    char* first = digits + sizeof(digits);
    for (; step > 0; step /= 10) *--first = static_cast<char>('0' + step % 10);
    text.part("step ", std::string_view(first, static_cast<std::size_t>(digits + sizeof(digits) - first)));
  }
  if (const char* activity = current_activity.load(std::memory_order_relaxed)) text.part("", activity);
  if (const char* collective = current_collective.load(std::memory_order_relaxed)) text.part("in ", collective);
  return text.length();
}

std::string text() {
  char buffer[256];
  return std::string(buffer, write_to(buffer, sizeof(buffer)));
}

}  // namespace sage::whereabouts
