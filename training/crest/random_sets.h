// The examples that crest still draws from, class by class, and the random sets that it draws.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/random.h"
#include "training/experiment.h"

namespace sage {

/// Those that were not learned yet. The same on every rank.
class RemainingExamples {
 public:
  /// All candidates of `experiment`. `of_each_class`: what a random set takes of each class, and the least that stays
  /// of it; `least`: the least that stays in all.
  RemainingExamples(const Experiment& experiment, std::int64_t of_each_class, std::int64_t least);

  std::int64_t size() const { return size_; }
  std::int64_t class_count() const { return static_cast<std::int64_t>(members_.size()); }
  std::int64_t of_each_class() const { return of_each_class_; }

  /// of_each_class() examples of each class, uniformly and without replacement: those of class c lie at
  /// [c of_each_class(), (c + 1) of_each_class()). A pure function of the remaining examples and the stream.
  std::vector<std::int64_t> draw(RandomStream stream) const;

  /// Takes `ids` out in their order, passing over those that would leave fewer than the floors; returns what it took
  /// out. An id that is out already is passed over.
  std::vector<std::int64_t> exclude(std::span<const std::int64_t> ids);

  /// Ascending.
  const std::vector<std::int64_t>& excluded() const { return excluded_; }

 private:
  std::span<const std::int64_t> labels_;
  std::int64_t of_each_class_, least_, size_ = 0;
  std::vector<std::vector<std::int64_t>> members_;  // of each class, ascending
  std::vector<std::int64_t> excluded_;
};

}  // namespace sage
