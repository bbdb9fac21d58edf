// What a stopped selection leaves behind and how it travels: the parts of all ranks to rank 0, and back.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/named_tensor.h"
#include "distributed/communicator.h"
#include "distributed/shard_plan.h"
#include "selection/selection.h"

namespace sage {

/// Of a logical shard in SelectionProgress::rows_done.
constexpr std::int64_t kShardEnded = -1;

/// How far a selection is; its tensors apart.
struct SelectionProgress {
  bool is_scoring = false;              ///< the first pass is over
  std::vector<std::int64_t> rows_done;  ///< positions of each logical shard that are sketched, or kShardEnded
  SelectionSeconds seconds;             ///< spent so far
  std::int64_t bytes_sent = 0;          ///< by all ranks so far
};

/// Together with everything of the request that the progress depends on.
std::string progress_to_json(const SelectionProgress& progress, const SelectionRequest& request,
                             std::int64_t shard_count);
/// Throws CheckpointError if `text` is damaged, or of another request: then each difference is named.
SelectionProgress progress_from_json(const std::string& text, const SelectionRequest& request, const ShardPlan& plan);

/// Throws CheckpointError.
[[noreturn]] void damaged_selection(const std::string& what);

/// "node.3.0.rows" as {"node", "3", "0", "rows"}, and numbers in it. Throws CheckpointError for anything else.
std::vector<std::string> parts_of_name(const std::string& name);
std::int64_t number_in_name(const std::string& name, std::size_t part);

/// ALL ranks: the tensors of all ranks in rank order, in host memory, on rank 0; nothing on the others.
std::vector<NamedTensor> gather_to_first(Communicator& communicator, const std::vector<NamedTensor>& mine);

/// ALL ranks: calls use(name, tensor) with every tensor that rank 0 holds in `tensors`, one after the other, on the
/// communicator's device. Where it throws on one rank, all throw.
void hand_out(Communicator& communicator, const std::vector<NamedTensor>& tensors,
              const std::function<void(const std::string& name, const at::Tensor& tensor)>& use);

/// ALL ranks: the text of rank 0.
std::string text_of_first(Communicator& communicator, const std::string& text);

}  // namespace sage
