#include "training/crest/coresets.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/index_select.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/random.h"
#include "selection/facility_location.h"

namespace sage {
namespace {

constexpr double stochastic_epsilon = 0.1;

/// A chosen example on its way between the ranks.
struct Choice {
  std::int64_t set, order, id, cluster;
};
constexpr std::int64_t choice_columns = 4;

at::Tensor residuals_of(std::span<const std::int64_t> set, std::span<const std::int64_t> ids,
                        const at::Tensor& residuals) {
  at::Tensor rows = at::empty({static_cast<std::int64_t>(set.size())}, at::kLong);
  auto* row = rows.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t id : set) *row++ = std::lower_bound(ids.begin(), ids.end(), id) - ids.begin();
  return residuals.index_select(0, rows);
}

/// ALL ranks: the choices of all, in the order of set and choice.
std::vector<Choice> gather(const std::vector<Choice>& mine, Communicator& communicator) {
  at::Tensor rows = at::empty({static_cast<std::int64_t>(mine.size()), choice_columns}, at::kLong);
  auto* value = rows.mutable_data_ptr<std::int64_t>();
  for (const Choice& choice : mine) {
    for (const std::int64_t column : {choice.set, choice.order, choice.id, choice.cluster}) *value++ = column;
  }
  const at::Tensor all = communicator.all_gather_rows(rows.to(communicator.device())).cpu();
  std::vector<Choice> choices;
  const auto* from = all.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < all.size(0); ++i, from += choice_columns) {
    choices.push_back({from[0], from[1], from[2], from[3]});
  }
  std::sort(choices.begin(), choices.end(),
            [](const Choice& a, const Choice& b) { return std::pair(a.set, a.order) < std::pair(b.set, b.order); });
  return choices;
}

Coreset to_coreset(std::span<const Choice> choices) {
  Coreset coreset;
  double sum = 0.0;
  for (const Choice& choice : choices) sum += static_cast<double>(choice.cluster);
  const double scale = static_cast<double>(choices.size()) / sum;
  for (const Choice& choice : choices) {
    coreset.ids.push_back(choice.id);
    coreset.weights.push_back(static_cast<float>(static_cast<double>(choice.cluster) * scale));
  }
  return coreset;
}

/// The released code draws its batches from the choices of all sets together.
std::vector<Choice> shuffled(const std::vector<Choice>& choices, std::uint64_t seed, std::int64_t first_set) {
  std::vector<Choice> result;
  for (const std::int64_t position :
       random_permutation(static_cast<std::int64_t>(choices.size()),
                          RandomStream(seed, "crest/pool", static_cast<std::uint64_t>(first_set)))) {
    result.push_back(choices[static_cast<std::size_t>(position)]);
  }
  return result;
}

}  // namespace

std::vector<std::int64_t> coreset_quota(const CoresetOptions& options, std::int64_t set) {
  const std::int64_t classes = options.class_count, more = options.size % classes;
  if (options.as_released) {
    const std::int64_t of_each = std::min(options.of_each_class, (options.size + classes - 1) / classes);
    return std::vector<std::int64_t>(static_cast<std::size_t>(classes), of_each);
  }
  std::vector<std::int64_t> quota(static_cast<std::size_t>(classes), options.size / classes);
  const auto start = static_cast<std::int64_t>(
      RandomStream(options.seed, "crest/rotation").below(static_cast<std::uint64_t>(classes)));
  for (std::int64_t i = 0; i < more; ++i) ++quota[static_cast<std::size_t>((start + set * more + i) % classes)];
  return quota;
}

SetChoice choose_of_set(const at::Tensor& residuals, const CoresetOptions& options, std::int64_t set) {
  const auto quota = coreset_quota(options, set);
  const std::int64_t count = options.of_each_class;
  RandomStream stream(options.seed, "crest/greedy", static_cast<std::uint64_t>(set));
  SetChoice result;
  for (std::int64_t c = 0; c < options.class_count; ++c) {
    const std::int64_t k = quota[static_cast<std::size_t>(c)];
    if (k == 0) continue;
    at::Tensor points = residuals.narrow(0, c * count, count);
    if (options.as_released) points = points.flip(at::IntArrayRef{0});
    at::Tensor similarity = similarity_of(points);
    if (options.as_released) {
      // max(D) - D on the diagonal is max(D).
      similarity.sub_(similarity.diagonal().max()).div_(static_cast<double>(options.class_count)).exp_();
    }
    const auto choice = options.is_stochastic ? stochastic_greedy(similarity, k, stochastic_epsilon, stream)
                                              : lazy_greedy(similarity, k);
    for (const std::int64_t position : choice.chosen) {
      result.positions.push_back(c * count + (options.as_released ? count - 1 - position : position));
    }
    result.cluster.insert(result.cluster.end(), choice.cluster.begin(), choice.cluster.end());
  }
  return result;
}

std::vector<Coreset> choose_coresets(std::span<const std::vector<std::int64_t>> sets, std::int64_t first_set,
                                     std::span<const std::int64_t> ids, const at::Tensor& residuals,
                                     const CoresetOptions& options, Communicator& communicator) {
  std::vector<Choice> mine;
  for (std::size_t set = static_cast<std::size_t>(communicator.rank()); set < sets.size();
       set += static_cast<std::size_t>(communicator.size())) {
    const auto number = first_set + static_cast<std::int64_t>(set);
    const SetChoice choice = choose_of_set(residuals_of(sets[set], ids, residuals), options, number);
    for (std::size_t i = 0; i < choice.positions.size(); ++i) {
      mine.push_back({number, static_cast<std::int64_t>(i), sets[set][static_cast<std::size_t>(choice.positions[i])],
                      choice.cluster[i]});
    }
  }
  std::vector<Choice> choices = gather(mine, communicator);
  std::vector<Coreset> coresets;
  if (!options.as_released) {
    const std::size_t size = choices.size() / sets.size();
    for (std::size_t i = 0; i < choices.size(); i += size) {
      coresets.push_back(to_coreset(std::span(choices).subspan(i, size)));
    }
    return coresets;
  }
  choices = shuffled(choices, options.seed, first_set);
  const auto batch = std::min(static_cast<std::size_t>(options.size), choices.size());
  for (std::size_t i = 0; i + batch <= choices.size(); i += batch) {
    coresets.push_back(to_coreset(std::span(choices).subspan(i, batch)));
  }
  return coresets;
}

}  // namespace sage
