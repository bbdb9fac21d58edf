#include "training/dropout/policies.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"
#include "selection/quota.h"

namespace sage {
namespace {

/// A stream for the example `id` of one batch. The batch's number has 32 bits beside the epoch's.
RandomStream stream_of(const DrawKey& key, std::int64_t id) {
  const auto place = static_cast<std::uint64_t>(key.epoch) << 32 | static_cast<std::uint64_t>(key.batch);
  // Ids have 32 bits in every data set that fits into a file of today; the seed takes what is above.
  return RandomStream(key.seed + static_cast<std::uint64_t>(id >> 32), "dropout", place,
                      static_cast<std::uint32_t>(id));
}

std::uint64_t draw(const DrawKey& key, std::int64_t id) {
  RandomStream stream = stream_of(key, id);
  const std::uint64_t high = stream();
  return high << 32 | stream();
}

/// Positions of a batch in the order in which they are taken.
using Order = std::vector<std::size_t>;

/// Sets the first `count` of `order`.
void take(KeptMask& mask, const Order& order, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) mask[order[static_cast<std::size_t>(i)]] = 1;
}

std::vector<Order> members_of_classes(const ScoredBatch& batch, std::int64_t class_count) {
  std::vector<Order> members(static_cast<std::size_t>(class_count));
  for (std::size_t i = 0; i < batch.size(); ++i) members.at(static_cast<std::size_t>(batch.labels[i])).push_back(i);
  return members;
}

/// By ascending draw; ties to the lower id.
void shuffle(Order& order, std::span<const std::int64_t> ids, std::span<const std::uint64_t> draws) {
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return draws[a] != draws[b] ? draws[a] < draws[b] : ids[a] < ids[b]; });
}

std::vector<std::uint64_t> draws_of(std::span<const std::int64_t> ids, const DrawKey& key) {
  std::vector<std::uint64_t> draws;
  draws.reserve(ids.size());
  for (const std::int64_t id : ids) draws.push_back(draw(key, id));
  return draws;
}

}  // namespace

std::int64_t ScoredBatch::hard_count() const {
  return std::accumulate(is_hard.begin(), is_hard.end(), std::int64_t{0});
}

bool is_hard(double p_true, bool is_right, double threshold, HardRule rule) {
  if (!(p_true >= 0.0)) return true;  // NaN too
  if (threshold == 0.0) return !is_right;
  return p_true < threshold || (rule == HardRule::either && !is_right);
}

std::int64_t kept_count(const KeptMask& mask) { return std::accumulate(mask.begin(), mask.end(), std::int64_t{0}); }

KeptMask keep_random(std::span<const std::int64_t> ids, std::int64_t count, const DrawKey& key) {
  const auto size = static_cast<std::int64_t>(ids.size());
  require(count >= 0, "keep_random: a negative number of examples");
  if (count >= size) return KeptMask(ids.size(), 1);
  KeptMask mask(ids.size(), 0);
  Order order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  shuffle(order, ids, draws_of(ids, key));
  take(mask, order, count);
  return mask;
}

std::vector<std::int64_t> stratified_quotas(std::span<const std::int64_t> count_of_class,
                                            std::span<const std::int64_t> hard_of_class) {
  const std::int64_t budget = std::accumulate(hard_of_class.begin(), hard_of_class.end(), std::int64_t{0});
  // In proportion to what there is, no class can be asked for more than it has.
  std::vector<std::int64_t> quotas = split_by_weight(budget, count_of_class, count_of_class);
  for (std::size_t c = 0; c < quotas.size(); ++c) {
    if (hard_of_class[c] == 0 || quotas[c] > 0) continue;
    // Classes with a hard example are no more than the budget, so another one can spare a place.
    std::size_t largest = quotas.size();
    for (std::size_t other = 0; other < quotas.size(); ++other) {
      if (quotas[other] <= (hard_of_class[other] > 0 ? 1 : 0)) continue;
      if (largest == quotas.size() || quotas[other] > quotas[largest]) largest = other;
    }
    require(largest < quotas.size(), "stratified_quotas: more hard classes than hard examples");
    --quotas[largest];
    quotas[c] = 1;
  }
  return quotas;
}

KeptMask keep_stratified(const ScoredBatch& batch, std::int64_t class_count) {
  std::vector<Order> members = members_of_classes(batch, class_count);
  std::vector<std::int64_t> count, hard;
  for (const Order& of_class : members) {
    count.push_back(static_cast<std::int64_t>(of_class.size()));
    hard.push_back(std::count_if(of_class.begin(), of_class.end(), [&](std::size_t i) { return batch.is_hard[i]; }));
  }
  const std::vector<std::int64_t> quotas = stratified_quotas(count, hard);
  KeptMask mask(batch.size(), 0);
  for (std::size_t c = 0; c < members.size(); ++c) {
    std::sort(members[c].begin(), members[c].end(), [&](std::size_t a, std::size_t b) {
      if (batch.is_hard[a] != batch.is_hard[b]) return batch.is_hard[a] > batch.is_hard[b];
      return batch.p_true[a] != batch.p_true[b] ? batch.p_true[a] < batch.p_true[b] : batch.ids[a] < batch.ids[b];
    });
    take(mask, members[c], quotas[c]);
  }
  return mask;
}

std::vector<std::int64_t> largest_remainders(std::int64_t budget, std::span<const double> weights) {
  require(budget >= 0, "largest_remainders: a negative budget");
  std::vector<std::int64_t> quotas(weights.size(), 0);
  if (budget == 0) return quotas;
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  require(sum > 0.0 && std::isfinite(sum), "largest_remainders: the weights must be at least 0 and not all 0");
  std::vector<double> remainders(weights.size());
  std::vector<std::size_t> order;
  std::int64_t left = budget;
  for (std::size_t c = 0; c < weights.size(); ++c) {
    const double share = static_cast<double>(budget) * (weights[c] / sum);
    quotas[c] = static_cast<std::int64_t>(share);
    remainders[c] = share - std::floor(share);
    left -= quotas[c];
    if (weights[c] > 0.0) order.push_back(c);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  // Rounding can leave a whole share too few or too many where there are very many classes: round and round, or back.
  for (std::size_t i = 0; left > 0; i = (i + 1) % order.size(), --left) ++quotas[order[i]];
  for (std::size_t i = order.size(); left<0; i = i> 1 ? i - 1 : order.size()) {
    if (quotas[order[i - 1]] == 0) continue;
    --quotas[order[i - 1]];
    ++left;
  }
  return quotas;
}

KeptMask keep_adaptive(const ScoredBatch& batch, std::span<const double> proportions, const DrawKey& key) {
  const std::int64_t budget = batch.hard_count();
  if (budget == static_cast<std::int64_t>(batch.size())) return KeptMask(batch.size(), 1);
  KeptMask mask(batch.size(), 0);
  if (budget == 0) return mask;
  std::vector<Order> members = members_of_classes(batch, static_cast<std::int64_t>(proportions.size()));
  std::vector<double> present(proportions.begin(), proportions.end());
  for (std::size_t c = 0; c < members.size(); ++c) {
    if (members[c].empty()) present[c] = 0.0;
  }
  const std::vector<std::int64_t> quotas = largest_remainders(budget, present);
  const std::vector<std::uint64_t> draws = draws_of(batch.ids, key);
  Order rest;
  std::int64_t shortfall = 0;
  for (std::size_t c = 0; c < members.size(); ++c) {
    shuffle(members[c], batch.ids, draws);
    const auto taken = std::min(quotas[c], static_cast<std::int64_t>(members[c].size()));
    take(mask, members[c], taken);
    shortfall += quotas[c] - taken;
    rest.insert(rest.end(), members[c].begin() + taken, members[c].end());
  }
  shuffle(rest, batch.ids, draws);
  take(mask, rest, shortfall);
  return mask;
}

std::int64_t scheduled_count(double gamma, std::int64_t epoch, std::int64_t size) {
  return static_cast<std::int64_t>(std::floor(std::pow(gamma, static_cast<double>(epoch)) * static_cast<double>(size)));
}

PrunedEpoch prune_epoch(std::span<const std::int64_t> ids, std::span<const float> score_of_id, double prune,
                        std::uint64_t seed, std::int64_t epoch) {
  double sum = 0.0;
  std::int64_t known = 0;
  for (const std::int64_t id : ids) {
    const float score = score_of_id[static_cast<std::size_t>(id)];
    if (!std::isfinite(score)) continue;
    sum += score;
    ++known;
  }
  const double mean = known > 0 ? sum / static_cast<double>(known) : 0.0;
  PrunedEpoch kept;
  for (const std::int64_t id : ids) {
    const float score = score_of_id[static_cast<std::size_t>(id)];
    const bool at_risk = std::isfinite(score) && score < mean;
    if (at_risk) {
      RandomStream stream(seed + static_cast<std::uint64_t>(id >> 32), "infobatch", static_cast<std::uint64_t>(epoch),
                          static_cast<std::uint32_t>(id));
      if (stream.uniform() < prune) continue;
    }
    kept.ids.push_back(id);
    kept.weights.push_back(at_risk ? static_cast<float>(1.0 / (1.0 - prune)) : 1.0F);
  }
  return kept;
}

}  // namespace sage
