#include "distributed/communicator.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "core/error.h"

namespace sage {
namespace {

class SingleCommunicator : public Communicator {
 public:
  explicit SingleCommunicator(at::Device device) : device_(device) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  at::Device device() const override { return device_; }
  void all_reduce_sum(at::Tensor) override { ++traffic_.calls; }
  void all_reduce_max(at::Tensor) override { ++traffic_.calls; }
  void broadcast(at::Tensor, int root) override {
    require(root == 0, "broadcast from a rank that is not there");
    ++traffic_.calls;
  }
  at::Tensor all_gather_rows(const at::Tensor& rows) override {
    ++traffic_.calls;
    return rows.clone();
  }
  void exchange(int partner, const at::Tensor& send, at::Tensor receive) override {
    require(partner == -1 || partner == 0, "exchange with a rank that is not there");
    ++traffic_.calls;
    if (partner == 0) to_self(send, receive);
  }
  void exchange_all(std::span<const at::Tensor> to, std::span<at::Tensor> from) override {
    require(to.size() == 1 && from.size() == 1, "exchange_all needs one entry per rank");
    ++traffic_.calls;
    to_self(to[0], from[0]);
  }
  void barrier() override { ++traffic_.calls; }
  Traffic traffic() const override { return traffic_; }
  void reset_traffic() override { traffic_ = {}; }
  c10::intrusive_ptr<c10d::ProcessGroup> process_group() const override { return {}; }

 private:
  static void to_self(const at::Tensor& send, at::Tensor receive) {
    require(send.defined() == receive.defined(), "what a rank sends to itself must fit what it receives");
    if (send.defined()) receive.copy_(send);
  }

  at::Device device_;
  Traffic traffic_;
};

/// The exit status that an exception stands for.
int status_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return static_cast<int>(error.status());
  } catch (const PeerFailed& peer) {
    return peer.status();
  } catch (const c10::OutOfMemoryError&) {
    return static_cast<int>(ExitStatus::environment);
  } catch (const c10::DistError&) {
    return static_cast<int>(ExitStatus::communication);
  } catch (...) {
    return static_cast<int>(ExitStatus::internal);
  }
}

bool is_peer_failure(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const PeerFailed&) {
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace

std::vector<std::string> Communicator::all_gather_strings(const std::string& text) {
  const auto length = static_cast<std::int64_t>(text.size());
  const at::Tensor lengths = all_gather_rows(at::full({1}, length, at::kLong).to(device())).cpu();
  at::Tensor bytes = at::empty({length}, at::kByte);
  if (length > 0) std::memcpy(bytes.data_ptr(), text.data(), text.size());
  const at::Tensor all = all_gather_rows(bytes.to(device())).cpu();
  std::vector<std::string> texts;
  const auto* next = static_cast<const char*>(all.const_data_ptr());
  const auto* sizes = lengths.const_data_ptr<std::int64_t>();
  for (int r = 0; r < size(); ++r) {
    texts.emplace_back(next, static_cast<std::size_t>(sizes[r]));
    next += sizes[r];
  }
  return texts;
}

void Communicator::all_or_none(const std::function<void()>& action) {
  std::exception_ptr failure;
  try {
    action();
  } catch (...) {
    failure = std::current_exception();
  }
  // Per rank: 0 for success, status + 1 for an error of its own, the negative of that for a peer's error (which can
  // come out of an all_or_none inside the action, and is not the one to print).
  at::Tensor outcomes = at::zeros({size()}, at::kLong);
  if (failure) {
    const std::int64_t code = status_of(failure) + 1;
    outcomes[rank()] = is_peer_failure(failure) ? -code : code;
  }
  outcomes = outcomes.to(device());
  all_reduce_sum(outcomes);
  outcomes = outcomes.cpu();
  const auto* codes = outcomes.const_data_ptr<std::int64_t>();
  const auto* end = codes + size();
  const auto* speaker = std::find_if(codes, end, [](std::int64_t code) { return code > 0; });
  if (speaker == end) speaker = std::find_if(codes, end, [](std::int64_t code) { return code < 0; });
  if (speaker == end) return;
  if (speaker - codes == rank()) std::rethrow_exception(failure);
  throw PeerFailed(static_cast<int>(std::abs(*speaker) - 1));
}

std::unique_ptr<Communicator> make_single_communicator(at::Device device) {
  return std::make_unique<SingleCommunicator>(device);
}

}  // namespace sage
