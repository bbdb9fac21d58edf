// What progressive data dropout goes on with after a stop.
#include <algorithm>

#include "core/error.h"
#include "training/checkpoint.h"
#include "training/dropout/dropout.h"

namespace sage {
namespace {

template <class Value>
at::Tensor to_tensor(const std::vector<Value>& values, at::ScalarType type) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<Value>());
  return tensor;
}

template <class Value>
std::vector<Value> to_values(const at::Tensor& tensor) {
  const at::Tensor whole = tensor.contiguous();
  const auto* first = whole.const_data_ptr<Value>();
  return {first, first + whole.numel()};
}

constexpr const char* what = "the state of dropout (of another dropout.mode?)";

}  // namespace

std::vector<NamedTensor> ProgressiveDropout::state() const {
  at::Tensor classes = at::empty({3, class_count_}, at::kLong);
  auto* value = classes.mutable_data_ptr<std::int64_t>();
  for (const auto* counts : {&offered_of_class_, &hard_of_class_, &kept_of_class_}) {
    value = std::copy(counts->begin(), counts->end(), value);
  }
  const std::vector<std::int64_t> counts{offered_, kept_, updates_, empty_batches_};
  std::vector<NamedTensor> state{{"counts", to_tensor(counts, at::kLong)},
                                 {"classes", classes},
                                 {"pool.ids", to_tensor(pool_ids_, at::kLong)},
                                 {"pool.weights", to_tensor(pool_weights_, at::kFloat)}};
  if (difficulty_) state.push_back({"difficulty", to_tensor(difficulty_->difficulty(), at::kDouble)});
  if (mode_ == DropoutMode::infobatch) {
    state.push_back({"scores", to_tensor(scores_, at::kFloat)});
    state.push_back({"next_scores", to_tensor(next_scores_, at::kFloat)});
  }
  return state;
}

void ProgressiveDropout::load_state(std::span<const NamedTensor> state) {
  std::vector<NamedTensor> mine = this->state();
  // The pool is as long as it happens to be.
  for (NamedTensor& own : mine) {
    if (!own.name.starts_with("pool.")) continue;
    for (const NamedTensor& other : state) {
      if (other.name == own.name && other.tensor.dim() == 1)
        own.tensor = at::empty(other.tensor.sizes(), own.tensor.options());
    }
  }
  load_tensors(mine, state, what);
  const auto ids = to_values<std::int64_t>(mine[2].tensor);
  const auto weights = to_values<float>(mine[3].tensor);
  const auto known = static_cast<std::int64_t>(experiment_.labels.size());
  if ((!weights.empty() && weights.size() != ids.size()) ||
      !std::all_of(ids.begin(), ids.end(), [&](std::int64_t id) { return id >= 0 && id < known; })) {
    throw CheckpointError("the state of dropout holds examples that this data set does not have, or weights of others");
  }
  const auto counts = to_values<std::int64_t>(mine[0].tensor);
  offered_ = counts[0];
  kept_ = counts[1];
  updates_ = counts[2];
  empty_batches_ = counts[3];
  offered_of_class_ = to_values<std::int64_t>(mine[1].tensor[0]);
  hard_of_class_ = to_values<std::int64_t>(mine[1].tensor[1]);
  kept_of_class_ = to_values<std::int64_t>(mine[1].tensor[2]);
  pool_ids_ = ids;
  pool_weights_ = weights;
  if (difficulty_) difficulty_->set_difficulty(to_values<double>(mine[4].tensor));
  if (mode_ == DropoutMode::infobatch) {
    scores_ = to_values<float>(mine[4].tensor);
    next_scores_ = to_values<float>(mine[5].tensor);
  }
}

}  // namespace sage
