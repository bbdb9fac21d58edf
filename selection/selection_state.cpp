#include "selection/selection_state.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/bounded_json.h"
#include "core/checksum.h"
#include "core/error.h"

namespace sage {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kVersion = 1;

std::uint32_t checksum_of(std::span<const std::int64_t> values) { return crc32c(values.data(), values.size_bytes()); }

/// What decides about the state of a selection, under the names that a user knows.
ordered_json describe(const SelectionRequest& request, std::int64_t shard_count) {
  const SelectionConfig& config = request.config;
  return {{"number of candidates", request.ids.size()},
          {"candidates (checksum)", checksum_of(request.ids)},
          {"labels (checksum)", checksum_of(request.labels)},
          {"number of classes", request.class_count},
          {"seed", request.seed},
          {"round", request.round},
          {"selection.method", config.method},
          {"selection.scoring", config.scoring},
          {"selection.gradient.scope", config.gradient.scope},
          {"gradient dimension", request.source->dimension()},
          {"selection.sketch.method", config.sketch.method},
          {"selection.sketch.size", config.sketch.size},
          {"selection.sketch.max_size", config.sketch.max_size},
          {"selection.sketch.alpha", config.sketch.alpha},
          {"selection.sketch.buffer", config.sketch.buffer},
          {"selection.sketch.epsilon", config.sketch.epsilon},
          {"logical shards", shard_count},
          {"selection.batch_size", config.batch_size},
          {"selection.keep", config.keep},
          {"selection.filter.drop", config.filter.drop}};
}

/// [name, scalar type, shape] of each.
std::string list_of(const std::vector<NamedTensor>& tensors) {
  json list = json::array();
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, static_cast<int>(tensor.scalar_type()), tensor.sizes().vec()});
  }
  return list.dump();
}

/// A tensor for an entry of list_of(), not yet filled.
at::Tensor room_for(const json& entry, at::Device device) {
  return at::empty(entry[2].get<std::vector<std::int64_t>>(),
                   at::TensorOptions(device).dtype(static_cast<at::ScalarType>(entry[1].get<int>())));
}

}  // namespace

void damaged_selection(const std::string& what) {
  throw CheckpointError("the state of the stopped selection is damaged: " + what);
}

std::string progress_to_json(const SelectionProgress& progress, const SelectionRequest& request,
                             std::int64_t shard_count) {
  const SelectionSeconds& seconds = progress.seconds;
  return ordered_json{{"version", kVersion},
                      {"request", describe(request, shard_count)},
                      {"is_scoring", progress.is_scoring},
                      {"rows_done", progress.rows_done},
                      {"seconds", {seconds.sketch, seconds.merge, seconds.score, seconds.choose}},
                      {"bytes_sent", progress.bytes_sent}}
      .dump();
}

SelectionProgress progress_from_json(const std::string& text, const SelectionRequest& request, const ShardPlan& plan) {
  SelectionProgress progress;
  const std::int64_t shard_count = plan.shard_count();
  ordered_json there, rows_done;
  try {
    const auto state = parse_json<ordered_json>(text);
    if (const auto version = state.at("version").get<std::int64_t>(); version != kVersion) {
      damaged_selection(fmt::format("it is of version {}, this program reads version {}", version, kVersion));
    }
    there = state.at("request");
    state.at("is_scoring").get_to(progress.is_scoring);
    rows_done = state.at("rows_done");
    const auto seconds = state.at("seconds").get<std::array<double, 4>>();
    progress.seconds = {seconds[0], seconds[1], seconds[2], seconds[3]};
    state.at("bytes_sent").get_to(progress.bytes_sent);
    if (!there.is_object()) damaged_selection("it does not say what was selected");
  } catch (const JsonError& error) {
    damaged_selection(error.what());
  } catch (const nlohmann::json::exception& error) {
    damaged_selection(error.what());
  }
  std::vector<std::string> differences;
  const ordered_json here = describe(request, shard_count);
  for (const auto& [name, value] : here.items()) {
    const auto found = there.find(name);
    const std::string before = found == there.end() ? "nothing" : found->dump();
    if (before != value.dump()) differences.push_back(fmt::format("{} was {} and is {}", name, before, value.dump()));
  }
  if (!differences.empty()) {
    throw CheckpointError(
        fmt::format("the stopped selection cannot go on, it was another one: {}; run with the "
                    "settings of before, or without --resume",
                    fmt::join(differences, "; ")));
  }
  const auto shards = static_cast<std::size_t>(shard_count);
  if (!rows_done.is_array() || rows_done.size() != shards) {
    damaged_selection(fmt::format("it knows {} of {} shards", rows_done.is_array() ? rows_done.size() : 0, shards));
  }
  try {
    for (std::int64_t shard = 0; shard < shard_count; ++shard) {
      const auto [first, last] = plan.positions(shard);
      progress.rows_done.push_back(whole_number(rows_done[static_cast<std::size_t>(shard)],
                                                "rows of a shard that are done", kShardEnded, last - first));
    }
  } catch (const JsonError& error) {
    damaged_selection(error.what());
  }
  return progress;
}

std::vector<std::string> parts_of_name(const std::string& name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::int64_t number_in_name(const std::string& name, std::size_t part) {
  const std::vector<std::string> parts = parts_of_name(name);
  std::int64_t number = -1;
  if (part < parts.size()) {
    const char* end = parts[part].data() + parts[part].size();
    const auto [stopped, error] = std::from_chars(parts[part].data(), end, number);
    if (error != std::errc() || stopped != end) number = -1;
  }
  if (number < 0) damaged_selection(fmt::format("nothing is known of a tensor `{}`", name));
  return number;
}

std::vector<NamedTensor> gather_to_first(Communicator& communicator, const std::vector<NamedTensor>& mine) {
  const std::vector<std::string> lists = communicator.all_gather_strings(list_of(mine));
  std::vector<NamedTensor> all;
  if (communicator.rank() == 0) {
    for (const auto& [name, tensor] : mine) all.push_back({name, tensor.cpu().contiguous()});
  }
  for (int rank = 1; rank < communicator.size(); ++rank) {
    std::size_t next = 0;
    for (const json& entry : json::parse(lists[static_cast<std::size_t>(rank)])) {
      at::Tensor send, receive;
      if (communicator.rank() == 0) receive = room_for(entry, communicator.device());
      if (communicator.rank() == rank) send = mine[next].tensor.contiguous().to(communicator.device());
      ++next;
      const at::Tensor& either = send.defined() ? send : receive;
      // Rank 0 and `rank` meet; the others only keep step.
      const bool takes_part = either.defined() && either.numel() > 0;
      communicator.exchange(!takes_part ? -1 : rank - communicator.rank(), takes_part ? send : at::Tensor(),
                            takes_part ? receive : at::Tensor());
      if (communicator.rank() == 0) all.push_back({entry[0].get<std::string>(), receive.cpu()});
    }
  }
  return all;
}

void hand_out(Communicator& communicator, const std::vector<NamedTensor>& tensors,
              const std::function<void(const std::string& name, const at::Tensor& tensor)>& use) {
  const std::string list = text_of_first(communicator, list_of(tensors));
  std::size_t next = 0;
  for (const json& entry : json::parse(list)) {
    const at::Tensor tensor = communicator.rank() == 0 ? tensors[next].tensor.contiguous().to(communicator.device())
                                                       : room_for(entry, communicator.device());
    ++next;
    if (tensor.numel() > 0) communicator.broadcast(tensor, 0);
    communicator.all_or_none([&] { use(entry[0].get<std::string>(), tensor); });
  }
}

std::string text_of_first(Communicator& communicator, const std::string& text) {
  return communicator.all_gather_strings(communicator.rank() == 0 ? text : std::string())[0];
}

}  // namespace sage
